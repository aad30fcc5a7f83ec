"""The device that a model trains on."""

import torch

from flop_p2p.errors import ConfigError


def find_device(name: str) -> torch.device:
    """The device called ``cpu`` or ``cuda`` (or ``cuda:1`` and so on).

    Raises:
        ConfigError: there is no such device here.
    """
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(f"device {name!r} is unknown; take cpu or cuda") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device {name!r} is not supported; take cpu or cuda")
    if device.type == "cuda" and not torch.cuda.is_available():
        raise ConfigError("device cuda: PyTorch sees no CUDA device here; take --device cpu")
    return device


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed torch's global generators of the processor and of ``device``, as ``torch.manual_seed`` does.

    That one also seeds all that is not there, and takes longer over it than a step of a small model.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
