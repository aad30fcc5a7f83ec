"""Pretrained weights from a local safetensors file."""

from collections.abc import Collection
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from flop_p2p.errors import ModelError


def load_weights(model: nn.Module, path: Path, optional: Collection[str]) -> None:
    """Copy the tensors of ``path`` into ``model`` by name.

    Tensors named in ``optional`` (the head, which has the classes of another data set) keep their initial
    value where the file lacks them or has another shape, and so do integer counters. A first convolution
    trained on three channels is summed over them for a grey model.

    Raises:
        ModelError: the file is unreadable, or lacks a tensor of the model that is not optional.
    """
    try:
        loaded = load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{path}: not a readable safetensors file: {error}") from error
    for name, tensor in model.state_dict().items():
        value = _fitted(loaded.get(name), tensor)
        if value is not None and not bool(torch.isfinite(value).all()):
            raise ModelError(f"{path}: {name} holds NaN or infinite values; take an intact file")
        if value is not None:
            tensor.copy_(value)
        elif name not in optional and tensor.is_floating_point():
            found = f"has shape {tuple(loaded[name].shape)}" if name in loaded else "is not in the file"
            raise ModelError(f"{path}: {name} {found}; the model needs {tuple(tensor.shape)}")


def _fitted(value: Tensor | None, tensor: Tensor) -> Tensor | None:
    if value is None:
        return None
    if value.dim() == 4 and value.shape[1] == 3 and tensor.shape == (value.shape[0], 1, *value.shape[2:]):
        return value.sum(dim=1, keepdim=True)
    return value if value.shape == tensor.shape else None
