"""GroupNorm in place of BatchNorm."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from flop_p2p.config import ModelSettings
from flop_p2p.errors import SplitError
from flop_p2p.learning import build_blueprint
from flop_p2p.models import build_model, replace_batch_norm
from flop_p2p.models.normalization import groups_of


@pytest.mark.parametrize(
    ("channels", "groups"), [(1, 1), (3, 1), (6, 1), (8, 2), (16, 4), (24, 6), (37, 1), (64, 16), (96, 24), (2048, 32)]
)
def test_groups_divide_channels(channels: int, groups: int) -> None:
    assert groups_of(channels) == groups
    assert channels % groups == 0


def test_layers_keep_names_scales_and_mode() -> None:
    shared = nn.BatchNorm2d(8, eps=1e-3)
    nn.init.normal_(shared.weight)
    model = nn.Sequential(nn.Conv2d(1, 8, 3), shared, nn.Sequential(shared, nn.BatchNorm2d(8, affine=False)))
    scale = shared.weight.detach().clone()
    assert replace_batch_norm(model.eval()) == 2
    assert list(model.state_dict()) == ["0.weight", "0.bias", "1.weight", "1.bias", "2.0.weight", "2.0.bias"]
    assert model[1] is model[2][0]  # what was one layer stays one
    assert isinstance(model[1], nn.GroupNorm)
    assert (model[1].num_groups, model[1].eps, model[1].training) == (2, 1e-3, False)
    assert torch.equal(model[1].weight, scale)
    assert model[2][1].weight is None


def test_a_sample_does_not_depend_on_its_batch() -> None:
    model = build_model("resnet18", (3, 32, 32), 4, 0).train()
    replace_batch_norm(model)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model(images)[:1], model(images[:1]), rtol=1e-4, atol=1e-5)


def test_a_private_blueprint_is_the_same_everywhere() -> None:
    settings = ModelSettings(name="resnet18")
    private = [build_blueprint(settings, (3, 32, 32), 4, 7, differential=True) for _ in range(2)]
    plain = build_blueprint(settings, (3, 32, 32), 4, 7)
    assert not any(isinstance(layer, _BatchNorm) for layer in private[0].template.modules())
    assert private[0].split == private[1].split
    assert private[0].split.local == ()
    assert not any("running" in name for name in private[0].split.body.names)
    for name, tensor in private[0].template.state_dict().items():
        assert torch.equal(tensor, private[1].template.state_dict()[name])
        assert torch.equal(tensor, plain.template.state_dict()[name])  # the same initial weights as without
    assert private[0].remark is not None
    assert "GroupNorm takes the place of 20 BatchNorm layers" in private[0].remark
    assert plain.remark is None
    assert build_blueprint(ModelSettings(), (1, 8, 8), 4, 7, differential=True).remark is None


def test_pretrained_scales_are_taken_over(tmp_path: Path) -> None:
    weights = {name: value + 1 for name, value in build_model("resnet18", (3, 32, 32), 4, 0).state_dict().items()}
    save_file(weights, tmp_path / "weights.safetensors")
    settings = ModelSettings(name="resnet18", weights=tmp_path / "weights.safetensors")
    state = build_blueprint(settings, (3, 32, 32), 4, 7, differential=True).template.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in state.items())


def test_statistics_cannot_stay_private() -> None:
    with pytest.raises(SplitError, match="matches nothing"):
        build_blueprint(
            ModelSettings(name="resnet18", private=("*.running_mean", "fc.*")), (3, 32, 32), 4, 7, differential=True
        )
