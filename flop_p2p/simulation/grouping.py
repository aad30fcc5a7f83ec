"""How many sites train at once where the settings leave it open."""

import torch
from torch import nn

MANY_SITES = 256  # with fewer, small models train in milliseconds a round anyway
AT_ONCE = {"cpu": 32, "cuda": 64}
SMALL = 20_000  # parameters; with 50,000 both ways take the same time


def sites_at_once(model: nn.Module, device: torch.device, sites: int) -> int:
    """On a GPU many of them; on the CPU one, unless the model is a small one of linear layers and sites are many.

    Stacked products of matrices are several times faster there than many small ones, stacked convolutions slower than
    one after the other (`benchmarks/batched.py`). One after the other, sites are to the bit what their nodes would be.
    """
    if device.type != "cpu":
        return AT_ONCE["cuda"]
    weighty = [layer for layer in model.modules() if any(True for _ in layer.parameters(recurse=False))]
    linear = all(isinstance(layer, nn.Linear) for layer in weighty)
    small = sum(parameter.numel() for parameter in model.parameters()) <= SMALL
    return AT_ONCE["cpu"] if linear and small and sites >= MANY_SITES else 1
