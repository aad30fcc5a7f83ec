"""What is shared and what stays at home: the default head, globs, BatchNorm, tied tensors, refusals."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from flop_p2p.errors import SplitError
from flop_p2p.models import build_model
from flop_p2p.partial import Split, share_everything, split_model


class Tied(nn.Module):
    """Encoder and decoder share their weight, as language models do."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(4, 4)
        self.middle = nn.Linear(4, 4)
        self.decoder = nn.Linear(4, 4)
        self.decoder.weight = self.encoder.weight

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.decoder(self.middle(self.encoder(inputs)))
        return logits


def floating(module: nn.Module) -> set[str]:
    return {name for name, tensor in module.state_dict().items() if tensor.is_floating_point()}


@pytest.mark.parametrize(
    ("name", "shape", "head"),
    [("mlp", (4,), "head"), ("small-cnn", (1, 8, 8), "head"), ("resnet18", (1, 32, 32), "fc")],
)
def test_default_head_is_the_last_linear_layer(name: str, shape: tuple[int, ...], head: str) -> None:
    model = build_model(name, shape, 3, seed=0)
    split = split_model(model)
    assert split.head.names == (f"{head}.weight", f"{head}.bias")
    assert set(split.body.names) == floating(model) - set(split.head.names)
    assert list(split.body.names) == [key for key in model.state_dict() if key in set(split.body.names)]


def test_shapes_are_those_of_the_model() -> None:
    model = build_model("small-cnn", (3, 8, 8), 5, seed=0)
    split = split_model(model)
    for spec in (*split.body.tensors, *split.head.tensors):
        assert spec.shape == model.state_dict()[spec.name].shape
        assert spec.dtype == "float32"


def test_globs_choose_the_head() -> None:
    model = build_model("small-cnn", (1, 8, 8), 3, seed=0)
    split = split_model(model, ["body.0.*", "*.bias"])
    assert set(split.head.names) == {"body.0.weight", "body.0.bias", "body.3.bias", "body.7.bias", "head.bias"}
    assert set(split.body.names) == {"body.3.weight", "body.7.weight", "head.weight"}


def test_globs_replace_the_default_head() -> None:
    assert "head.weight" in split_model(build_model("mlp", (4,), 3, seed=0), ["body.1.*"]).body.names


@pytest.mark.parametrize("globs", [["heads.*"], ["head.*", "HEAD.*"], ["head"], ["fc.*", "head.*"]])
@pytest.mark.parametrize("name", ["mlp", "small-cnn"])
def test_a_glob_without_a_match_is_an_error_that_lists_the_names(globs: list[str], name: str) -> None:
    model = build_model(name, (1, 8, 8), 3, seed=0)
    with pytest.raises(SplitError) as error:
        split_model(model, globs)
    text = str(error.value)
    assert "matches nothing" in text
    assert all(key in text for key in model.state_dict())
    assert "\n" not in text


def test_renamed_head_of_resnet18_is_an_error() -> None:
    with pytest.raises(SplitError, match=r"'classifier\.\*' matches nothing.*layer4\.1\.bn2\.running_var"):
        split_model(build_model("resnet18", (1, 32, 32), 3, seed=0), ["classifier.*"])


def test_everything_private_leaves_no_body() -> None:
    with pytest.raises(SplitError, match=r"leaves no body to share.*body\.1\.weight"):
        split_model(build_model("mlp", (4,), 3, seed=0), ["*"])


def test_a_single_linear_layer_leaves_no_body() -> None:
    with pytest.raises(SplitError, match="leaves no body to share"):
        split_model(nn.Linear(4, 3))


def test_counters_alone_are_no_head(norm_net: Callable[[], nn.Module]) -> None:
    with pytest.raises(SplitError, match="leaves no head to keep"):
        split_model(norm_net(), ["*.num_batches_tracked"])


def test_a_model_without_linear_layer_needs_globs() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 3, 3))
    with pytest.raises(SplitError, match=r"--private.*0\.weight, 0\.bias, 1\.weight"):
        split_model(model)
    assert split_model(model, ["1.*"]).head.names == ("1.weight", "1.bias")


def test_batch_norm_shared_by_default(norm_net: Callable[[], nn.Module]) -> None:
    split = split_model(norm_net())
    assert {"1.weight", "1.bias", "1.running_mean", "1.running_var"} < set(split.body.names)
    assert split.local == ("1.num_batches_tracked",)
    assert split.head.names == ("3.weight", "3.bias")


def test_batch_norm_private(norm_net: Callable[[], nn.Module]) -> None:
    split = split_model(norm_net(), batch_norm="private")
    assert split.body.names == ("0.weight",)
    assert set(split.head.names) == {
        *("1.weight", "1.bias", "1.running_mean", "1.running_var"),
        *("3.weight", "3.bias"),
    }
    assert split.local == ("1.num_batches_tracked",)


def test_private_batch_norm_of_resnet18_leaves_convolutions_only() -> None:
    split = split_model(build_model("resnet18", (1, 32, 32), 3, seed=0), batch_norm="private")
    assert len(split.body.names) == 20
    assert all("conv" in name or name.endswith("downsample.0.weight") for name in split.body.names)


def test_private_batch_norm_without_batch_norm_is_an_error() -> None:
    with pytest.raises(SplitError, match="no BatchNorm"):
        split_model(build_model("mlp", (4,), 3, seed=0), batch_norm="private")


def test_tied_tensors_are_private_if_one_alias_is() -> None:
    split = split_model(Tied())  # the default head is `decoder`, whose weight is the encoder's
    assert split.head.names == ("encoder.weight", "decoder.bias")
    assert split.body.names == ("encoder.bias", "middle.weight", "middle.bias")


def test_tied_tensors_are_shared_once() -> None:
    split = split_model(Tied(), ["middle.*"])
    assert split.body.names == ("encoder.weight", "encoder.bias", "decoder.bias")
    assert split.body.parameters == 16 + 4 + 4


def test_share_everything(norm_net: Callable[[], nn.Module]) -> None:
    module = norm_net()
    split = share_everything(module)
    assert set(split.body.names) == floating(module)
    assert split.head.tensors == ()
    assert split.local == ("1.num_batches_tracked",)


@pytest.mark.parametrize("split", [split_model, share_everything])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.complex64])
def test_other_dtypes_are_refused(split: Callable[[nn.Module], Split], dtype: torch.dtype) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    module.register_buffer("table", torch.zeros(2, dtype=dtype))
    with pytest.raises(SplitError, match=f"table is {str(dtype).removeprefix('torch.')}.*float32"):
        split(module)


def test_float64_model_is_refused() -> None:
    with pytest.raises(SplitError, match=r"0\.weight is float64"):
        split_model(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3)).double())


def test_extra_state_is_refused() -> None:
    class Counting(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"calls": 1}

    with pytest.raises(SplitError, match=r"0\._extra_state is dict"):
        split_model(nn.Sequential(Counting(4, 4), nn.Linear(4, 3)))


def test_buffers_that_are_not_saved_are_not_shared() -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))
    module.register_buffer("cache", torch.zeros(2), persistent=False)
    assert "cache" not in split_model(module).body.names
