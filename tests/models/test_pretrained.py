"""Pretrained weights from a safetensors file: what is taken, what may differ, what is refused."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from flop_p2p.errors import ModelError
from flop_p2p.models import build_model, load_weights

StateOf = Callable[[nn.Module], dict[str, Tensor]]
HEAD = ("head.weight", "head.bias")
GREY, COLOUR = (1, 8, 8), (3, 8, 8)


@pytest.fixture
def save(tmp_path: Path, state_of: StateOf) -> Callable[..., Path]:
    """Write the state of a model to a file and say where; ``changes`` replace tensors, None removes one."""

    def write(model: nn.Module, changes: dict[str, Tensor | None] | None = None) -> Path:
        content = {**state_of(model), **(changes or {})}
        save_file({name: tensor for name, tensor in content.items() if tensor is not None}, tmp_path / "w.safetensors")
        return tmp_path / "w.safetensors"

    return write


def cnn(seed: int, shape: tuple[int, ...] = GREY, outputs: int = 3) -> nn.Module:
    return build_model("small-cnn", shape, outputs, seed)


def test_a_full_match_takes_every_tensor(save: Callable[..., Path], state_of: StateOf) -> None:
    source, model = cnn(1), cnn(2)
    load_weights(model, save(source), HEAD)
    assert all(torch.equal(tensor, state_of(source)[name]) for name, tensor in state_of(model).items())


def test_other_classes_keep_the_new_head(save: Callable[..., Path], state_of: StateOf) -> None:
    source, model = cnn(1, outputs=10), cnn(2)
    before = state_of(model)
    load_weights(model, save(source), HEAD)
    for name, tensor in state_of(model).items():
        assert torch.equal(tensor, before[name] if name in HEAD else state_of(source)[name]), name


def test_a_file_without_head(save: Callable[..., Path], state_of: StateOf) -> None:
    source, model = cnn(1), cnn(2)
    before = state_of(model)
    load_weights(model, save(source, dict.fromkeys(HEAD)), HEAD)
    assert all(torch.equal(state_of(model)[name], before[name]) for name in HEAD)
    assert torch.equal(state_of(model)["body.7.weight"], state_of(source)["body.7.weight"])


def test_colour_weights_are_summed_for_grey_images(save: Callable[..., Path], state_of: StateOf) -> None:
    source, model = cnn(1, COLOUR), cnn(2)
    load_weights(model, save(source), HEAD)
    colour = state_of(source)["body.0.weight"]
    torch.testing.assert_close(state_of(model)["body.0.weight"], colour[:, :1] + colour[:, 1:2] + colour[:, 2:])
    grey = torch.rand(2, *GREY)
    torch.testing.assert_close(model.eval()(grey), source.eval()(grey.expand(2, 3, 8, 8)))


def test_running_statistics_are_taken_and_counters_may_lack(
    save: Callable[..., Path], norm_net: Callable[[], nn.Module]
) -> None:
    source, model = norm_net(), norm_net()
    source(torch.randn(8, 4))
    load_weights(model, save(source, {"1.num_batches_tracked": None}), ())
    assert torch.equal(model[1].running_mean, source[1].running_mean)
    assert model[1].num_batches_tracked == 0


def test_half_precision_files_are_converted(save: Callable[..., Path], state_of: StateOf) -> None:
    source, model = cnn(1), cnn(2)
    load_weights(model, save(source, {"body.7.bias": state_of(source)["body.7.bias"].half()}), HEAD)
    taken = state_of(model)["body.7.bias"]
    assert taken.dtype == torch.float32
    assert torch.equal(taken, state_of(source)["body.7.bias"].half().float())


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"body.3.weight": None}, r"body\.3\.weight is not in the file; the model needs \(32, 16, 3, 3\)"),
        ({"body.7.bias": torch.zeros(9)}, r"body\.7\.bias has shape \(9,\); the model needs \(64,\)"),
        ({"body.3.bias": torch.full((32,), torch.nan)}, r"body\.3\.bias holds NaN"),
        ({"head.bias": torch.full((3,), torch.inf)}, r"head\.bias holds NaN or infinite"),
        ({"body.0.weight": torch.full((16, 3, 3, 3), torch.nan)}, r"body\.0\.weight holds NaN"),
    ],
)
def test_wrong_tensors_are_refused(changes: dict[str, Tensor | None], text: str, save: Callable[..., Path]) -> None:
    path = save(cnn(1), changes)
    with pytest.raises(ModelError, match=text) as error:
        load_weights(cnn(2), path, HEAD)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_head_is_needed_unless_optional(save: Callable[..., Path]) -> None:
    with pytest.raises(ModelError, match=r"head\.weight is not in the file"):
        load_weights(cnn(2), save(cnn(1), dict.fromkeys(HEAD)), ())


@pytest.mark.parametrize("keep", [0, 5, 100, -1])
def test_truncated_files_are_refused(keep: int, save: Callable[..., Path]) -> None:
    path = save(cnn(1))
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="not a readable safetensors file"):
        load_weights(cnn(2), path, HEAD)


def test_absent_file_and_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(ModelError, match="not a readable safetensors file"):
            load_weights(cnn(2), path, HEAD)
