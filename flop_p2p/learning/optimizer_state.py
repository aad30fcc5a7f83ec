"""The state of an optimizer as named tensors, for checkpoints."""

from collections.abc import Mapping

import torch
from torch import Tensor


def optimizer_tensors(optimizer: torch.optim.Optimizer, prefix: str) -> dict[str, Tensor]:
    """Momentum and the like of every parameter, named ``<prefix><parameter>/<key>``."""
    states = optimizer.state_dict()["state"].items()
    return {
        f"{prefix}{parameter}/{key}": value
        for parameter, state in states
        for key, value in state.items()
        if isinstance(value, Tensor)
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, prefix: str, tensors: Mapping[str, Tensor]) -> None:
    """Take over what `optimizer_tensors` gave; other names are passed over.

    Raises:
        ValueError: a name with the prefix is none of its.
    """
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        if name.startswith(prefix):
            parameter, key = name.removeprefix(prefix).split("/")
            state.setdefault(int(parameter), {})[key] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
