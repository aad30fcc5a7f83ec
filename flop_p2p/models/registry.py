"""Models by name: our small ones, torchvision's classification backbones, and the user's own."""

import difflib
import importlib
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import nn

from flop_p2p.errors import ModelError
from flop_p2p.models.small import MLP, SmallCNN
from flop_p2p.seeding import derive_int

SMALL_MODELS: dict[str, Callable[[Sequence[int], int], nn.Module]] = {"mlp": MLP, "small-cnn": SmallCNN}


def default_model(sample_shape: Sequence[int]) -> str:
    """``small-cnn`` for images (three dimensions), ``mlp`` for tables."""
    return "small-cnn" if len(sample_shape) == 3 else "mlp"


def build_model(name: str, sample_shape: Sequence[int], outputs: int, seed: int) -> nn.Module:
    """A freshly initialized model; equal arguments give equal weights.

    Args:
        name: ``mlp``, ``small-cnn``, a torchvision backbone such as ``resnet18``, or
            ``package.module:callable`` called as ``callable(sample_shape, outputs)``.
        sample_shape: ``(features,)`` of a table or ``(channels, height, width)`` of images.
        outputs: number of logits.

    Raises:
        ModelError: no such model, or it does not take such samples.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_int(seed, "model"))
        if ":" in name:
            model = _user_model(name, sample_shape, outputs)
        elif name in SMALL_MODELS:
            model = _small_model(name, sample_shape, outputs)
        else:
            model = _torchvision_model(name, sample_shape, outputs)
        _try_out(model, name, sample_shape, outputs)  # which also draws the weights of lazy layers
    return model


def _small_model(name: str, sample_shape: Sequence[int], outputs: int) -> nn.Module:
    if name == "small-cnn" and (len(sample_shape) != 3 or min(sample_shape[1:]) < 4):
        raise ModelError(f"small-cnn needs images of at least 4 x 4 pixels, not samples of shape {tuple(sample_shape)}")
    return SMALL_MODELS[name](sample_shape, outputs)


def _torchvision_model(name: str, sample_shape: Sequence[int], outputs: int) -> nn.Module:
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        close = difflib.get_close_matches(name, [*known, *SMALL_MODELS], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(close)}?" if close else "take mlp, small-cnn or a torchvision backbone"
        raise ModelError(f"model {name!r} is unknown; {hint}")
    if len(sample_shape) != 3:
        raise ModelError(f"{name} needs images; for a table of {sample_shape[0]} features use --model mlp")
    # Their auxiliary classifiers only serve training from scratch at full size.
    extra = {"aux_logits": False, "init_weights": True} if name in ("googlenet", "inception_v3") else {}
    model: nn.Module = models.get_model(name, weights=None, num_classes=outputs, **extra)
    if sample_shape[0] != 3:
        _adapt_channels(model, sample_shape[0])
    return model


def _adapt_channels(model: nn.Module, channels: int) -> None:
    """Replace the first convolution by one for ``channels`` input channels."""
    name, first = next((name, layer) for name, layer in model.named_modules() if isinstance(layer, nn.Conv2d))
    parent = model.get_submodule(name.rpartition(".")[0])
    replacement = nn.Conv2d(
        channels,
        first.out_channels,
        first.kernel_size,  # type: ignore[arg-type]
        first.stride,  # type: ignore[arg-type]
        first.padding,  # type: ignore[arg-type]
        bias=first.bias is not None,
    )
    setattr(parent, name.rpartition(".")[2], replacement)
    if hasattr(model, "transform_input"):  # inception_v3 and googlenet undo a normalization of three channels
        vars(model)["transform_input"] = False


def _user_model(name: str, sample_shape: Sequence[int], outputs: int) -> nn.Module:
    module_name, _, attribute = name.partition(":")
    folder = str(Path.cwd())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        factory = getattr(importlib.import_module(module_name), attribute)
        model = factory(tuple(sample_shape), outputs)
    except Exception as error:
        raise ModelError(f"model {name}: {type(error).__name__}: {_first_line(error)}") from error
    if not isinstance(model, nn.Module):
        raise ModelError(f"model {name}: returned {type(model).__name__}, not a torch.nn.Module")
    return model


def _try_out(model: nn.Module, name: str, sample_shape: Sequence[int], outputs: int) -> None:
    """One forward pass in evaluation mode, so that a model that does not fit fails at the start."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            result = model(torch.zeros(2, *sample_shape))
    except Exception as error:
        raise ModelError(
            f"{name} does not take samples of shape {tuple(sample_shape)}: {_first_line(error)}"
        ) from error
    finally:
        model.train(training)
    if getattr(result, "shape", None) != (2, outputs):
        shape = getattr(result, "shape", type(result).__name__)
        raise ModelError(f"{name} gives {shape} for a batch of 2, not {outputs} logits a sample")


def _first_line(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]
