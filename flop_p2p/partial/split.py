"""The split of a network into a shared body and a private head (Yang et al., KDD 2021, section 3)."""

from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from flop_p2p.errors import SplitError
from flop_p2p.partial.schema import Schema, TensorSpec


@dataclass(frozen=True)
class Split:
    """Which tensors of a model are shared and which are not.

    body: the tensors that are exchanged and averaged.
    head: the floating-point tensors that never leave the site.
    local: names of integer buffers (BatchNorm's counters), which are neither exchanged nor trained.
    """

    body: Schema
    head: Schema
    local: tuple[str, ...]


def split_model(
    module: nn.Module, private: Sequence[str] = (), batch_norm: Literal["shared", "private"] = "shared"
) -> Split:
    """Split ``module`` by ``private``, globs over the names of its parameters and persistent buffers.

    Without globs the head is the last linear layer. With ``batch_norm="private"`` all BatchNorm layers,
    statistics included, belong to the head (FedBN, Li et al. 2021). A tensor known under several names is
    private if one of them is.

    Raises:
        SplitError: a glob matches nothing, body or head would be empty, or a tensor is not float32.
    """
    groups = _tensors_with_names(module)
    names = [name for group in groups.values() for name in group]
    chosen = _match(names, private or _last_linear(module, names))
    if batch_norm == "private":
        chosen |= _batch_norm_names(module)
    split = _assemble(module, groups, chosen)
    for part, schema in (("body to share", split.body), ("head to keep", split.head)):
        if not schema.tensors:
            given = f"private = {', '.join(private) or 'the last linear layer'}, batch_norm = {batch_norm}"
            raise SplitError(f"{given} leaves no {part}; the model has {', '.join(names)}")
    return split


def share_everything(module: nn.Module, batch_norm: Literal["shared", "private"] = "shared") -> Split:
    """The split of the full-model baselines (FedAvg, D-PSGD): all floating-point tensors are shared.

    With ``batch_norm="private"`` all but the BatchNorm layers are (FedBN).

    Raises:
        SplitError: a tensor is neither float32 nor an integer buffer, or there is no BatchNorm to keep.
    """
    private = _batch_norm_names(module) if batch_norm == "private" else set()
    return _assemble(module, _tensors_with_names(module), private)


def _assemble(module: nn.Module, groups: dict[int, list[str]], private: set[str]) -> Split:
    state = module.state_dict(keep_vars=True)
    body: list[TensorSpec] = []
    head: list[TensorSpec] = []
    local: list[str] = []
    for group in groups.values():
        name, tensor = group[0], state[group[0]]
        if not tensor.is_floating_point() and not tensor.is_complex():
            local.append(name)
            continue
        if tensor.dtype != torch.float32:
            kind = str(tensor.dtype).removeprefix("torch.")
            raise SplitError(f"{name} is {kind}; bodies are float32: convert the model with .float()")
        spec = TensorSpec(name, tuple(tensor.shape))
        (head if private.intersection(group) else body).append(spec)
    return Split(Schema(tuple(body)), Schema(tuple(head)), tuple(local))


def _tensors_with_names(module: nn.Module) -> dict[int, list[str]]:
    """Names of every parameter and persistent buffer, tied ones together, in the order of the state."""
    groups: dict[int, list[str]] = {}
    for name, tensor in module.state_dict(keep_vars=True).items():
        if not isinstance(tensor, torch.Tensor):
            raise SplitError(f"{name} is {type(tensor).__name__}, not a tensor; a model's state must be tensors alone")
        groups.setdefault(id(tensor), []).append(name)
    return groups


def _match(names: Sequence[str], globs: Sequence[str]) -> set[str]:
    chosen: set[str] = set()
    for glob in globs:
        matched = {name for name in names if fnmatchcase(name, glob)}
        if not matched:
            raise SplitError(f"the private glob {glob!r} matches nothing; the model has {', '.join(names)}")
        chosen |= matched
    return chosen


def _last_linear(module: nn.Module, names: Sequence[str]) -> list[str]:
    linear = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    if not linear:
        raise SplitError(
            "the model has no linear layer that could be the head; name the private layers with --private, "
            f"a glob over {', '.join(names)}"
        )
    return [f"{linear[-1]}.*"] if linear[-1] else ["*"]


def _batch_norm_names(module: nn.Module) -> set[str]:
    layers = {name: layer for name, layer in module.named_modules() if isinstance(layer, _BatchNorm)}
    if not layers:
        raise SplitError("batch_norm is private, but the model has no BatchNorm layer; use batch_norm = 'shared'")
    return {f"{prefix}.{name}" if prefix else name for prefix, layer in layers.items() for name in layer.state_dict()}
