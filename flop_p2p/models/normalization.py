"""GroupNorm in place of BatchNorm, which lets one patient's image change what is computed of another's."""

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

MOST_GROUPS = 32  # as in Wu and He 2018
LEAST_CHANNELS = 4  # of a group, where that divides the channels: one channel of one pixel would be normalized to zero


def replace_batch_norm(model: nn.Module) -> int:
    """Replace every BatchNorm layer of ``model`` by GroupNorm with the same names and scales; returns how many.

    Running statistics go: GroupNorm normalizes each sample by itself.
    """
    replaced: dict[nn.Module, nn.GroupNorm] = {}
    for name, layer in list(model.named_modules(remove_duplicate=False)):
        if isinstance(layer, _BatchNorm) and name:
            parent, _, own = name.rpartition(".")
            norm = replaced.setdefault(layer, _group_norm(layer))
            model.get_submodule(parent).register_module(own, norm)
    return len(replaced)


def groups_of(channels: int) -> int:
    """Groups of so many channels: the most that divide them, up to 32, with four channels or more in each."""
    fitting = range(1, min(MOST_GROUPS, channels // LEAST_CHANNELS) + 1)
    return max((groups for groups in fitting if channels % groups == 0), default=1)


def _group_norm(layer: _BatchNorm) -> nn.GroupNorm:
    norm = nn.GroupNorm(groups_of(layer.num_features), layer.num_features, eps=layer.eps, affine=layer.affine)
    norm.train(layer.training)
    norm.load_state_dict({name: value for name, value in layer.state_dict().items() if name in ("weight", "bias")})
    return norm
