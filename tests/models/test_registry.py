"""Models by name: torchvision's backbones, our small ones, the user's own; seeds; names that do not exist."""

import importlib
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from torch import Tensor, nn

from flop_p2p.errors import ModelError
from flop_p2p.models import build_model, default_model
from flop_p2p.partial import split_model

CLASSIFICATION = torchvision.models.list_models(module=torchvision.models)
HEADS = {
    "resnet18": "fc",
    "resnet50": "fc",
    "resnext50_32x4d": "fc",
    "mobilenet_v2": "classifier.1",
    "vgg11": "classifier.6",
    "densenet121": "classifier",
    "efficientnet_b0": "classifier.1",
    # three more, of other families; GoogLeNet has auxiliary classifiers and a transformation of colour inputs
    "googlenet": "fc",
    "shufflenet_v2_x0_5": "fc",
    "regnet_y_400mf": "fc",
}

USERS_MODEL = """
import torch
from torch import nn

class Lazy(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.features = nn.LazyLinear(5)
        self.head = nn.Linear(5, outputs)

    def forward(self, inputs):
        return self.head(self.features(inputs.flatten(1)))

def make(sample_shape, outputs):
    return nn.Sequential(nn.Flatten(), nn.Linear(sample_shape[0], 5), nn.ReLU(), nn.Linear(5, outputs))

def lazy(sample_shape, outputs):
    return Lazy(outputs)

def number(sample_shape, outputs):
    return 7

def too_few(sample_shape, outputs):
    return nn.Linear(sample_shape[0], outputs - 1)

def broken(sample_shape, outputs):
    raise ValueError("no such layer\\nand a second line")
"""


def state(model: nn.Module) -> dict[str, Tensor]:
    return model.state_dict()


def equal(first: nn.Module, second: nn.Module) -> bool:
    return all(torch.equal(tensor, state(second)[name]) for name, tensor in state(first).items())


@pytest.fixture
def users_module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of the user's in the current folder, forgotten afterwards."""
    package = tmp_path / "hospital_nets"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "nets.py").write_text(USERS_MODEL)
    (package / "torn.py").write_text("import a_library_that_is_not_there\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    for name in [name for name in sys.modules if name.startswith("hospital_nets")]:
        monkeypatch.delitem(sys.modules, name)
    importlib.invalidate_caches()
    return "hospital_nets.nets"


@pytest.mark.parametrize("name", HEADS)
def test_backbones_take_grey_images_and_split(name: str) -> None:
    model = build_model(name, (1, 64, 64), 3, seed=0)
    split = split_model(model)
    assert split.head.names == (f"{HEADS[name]}.weight", f"{HEADS[name]}.bias")
    first = next(layer for layer in model.modules() if isinstance(layer, nn.Conv2d))
    assert first.weight.shape[1] == 1
    with torch.no_grad():
        assert model.eval()(torch.rand(1, 1, 64, 64)).shape == (1, 3)


@pytest.mark.parametrize("name", CLASSIFICATION)
def test_every_classification_model_is_known_by_name(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Building all of them would take minutes; that torchvision is asked for the right one does not."""
    asked: list[tuple[str, object, int]] = []

    def get_model(name: str, weights: object, num_classes: int, **extra: bool) -> nn.Module:
        asked.append((name, weights, num_classes))
        return nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, num_classes))

    monkeypatch.setattr(torchvision.models, "get_model", get_model)
    build_model(name, (3, 8, 8), 4, seed=0)
    assert asked == [(name, None, 4)]


def test_the_issue_names_are_classification_models() -> None:
    assert set(HEADS) < set(CLASSIFICATION)


def test_colour_images_keep_the_first_convolution() -> None:
    model = build_model("resnet18", (3, 32, 32), 5, seed=0)
    assert state(model)["conv1.weight"].shape == (64, 3, 7, 7)
    assert state(model)["fc.weight"].shape == (5, 512)


def test_other_numbers_of_channels() -> None:
    grey = build_model("resnet18", (1, 32, 32), 3, seed=0)
    five = build_model("resnet18", (5, 32, 32), 3, seed=0)
    assert (state(grey)["conv1.weight"].shape[1], state(five)["conv1.weight"].shape[1]) == (1, 5)
    assert (five.conv1.stride, five.conv1.padding, five.conv1.bias) == ((2, 2), (3, 3), None)


@pytest.mark.parametrize(
    ("name", "shape"), [("mlp", (4,)), ("mlp", (1, 8, 8)), ("small-cnn", (3, 9, 8)), ("mobilenet_v2", (1, 32, 32))]
)
def test_the_seed_decides_the_weights(name: str, shape: tuple[int, ...]) -> None:
    torch.manual_seed(1)
    first = build_model(name, shape, 3, seed=4)
    torch.manual_seed(2)
    assert equal(build_model(name, shape, 3, seed=4), first)
    assert not equal(build_model(name, shape, 3, seed=5), first)


@pytest.mark.parametrize(("name", "shape"), [("mlp", (4,)), ("small-cnn", (1, 8, 8)), ("mobilenet_v2", (1, 32, 32))])
def test_building_leaves_the_global_generator_alone(name: str, shape: tuple[int, ...]) -> None:
    before = torch.random.get_rng_state()
    model = build_model(name, shape, 3, seed=4)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert model.training


def test_trying_out_leaves_running_statistics_alone() -> None:
    model = build_model("mobilenet_v2", (1, 32, 32), 3, seed=0)
    assert all(counter == 0 for name, counter in state(model).items() if name.endswith("num_batches_tracked"))


def test_layers_of_the_small_models() -> None:
    cnn = {name: tuple(tensor.shape) for name, tensor in state(build_model("small-cnn", (1, 28, 28), 10, 0)).items()}
    assert cnn["body.0.weight"] == (16, 1, 3, 3)
    assert cnn["body.3.weight"] == (32, 16, 3, 3)
    assert cnn["body.7.weight"] == (64, 32 * 7 * 7)
    assert cnn["head.weight"] == (10, 64)
    assert state(build_model("mlp", (30,), 2, 0))["head.weight"].shape == (2, 32)


def test_default_models() -> None:
    assert default_model((30,)) == "mlp"
    assert default_model((1, 28, 28)) == "small-cnn"


@pytest.mark.parametrize(
    ("wrong", "suggestion"),
    [("resnet-18", "resnet18"), ("smal-cnn", "small-cnn"), ("mobilenetv2", "mobilenet_v2"), ("mpl", "mlp")],
)
def test_unknown_names_are_refused_with_a_suggestion(wrong: str, suggestion: str) -> None:
    with pytest.raises(ModelError, match=f"'{wrong}' is unknown; did you mean .*{suggestion}"):
        build_model(wrong, (1, 32, 32), 3, seed=0)


@pytest.mark.parametrize("name", ["qqqqqqqq", "fcn_resnet50", "raft_large"])
def test_names_of_other_tasks_are_unknown(name: str) -> None:
    with pytest.raises(ModelError, match="is unknown"):
        build_model(name, (3, 32, 32), 3, seed=0)


@pytest.mark.parametrize(
    ("name", "shape", "text"),
    [
        ("resnet18", (30,), "needs images.*30 features"),
        ("small-cnn", (30,), "needs images of at least 4 x 4"),
        ("small-cnn", (1, 3, 8), "needs images of at least 4 x 4"),
        ("alexnet", (3, 16, 16), "alexnet does not take samples of shape"),
    ],
)
def test_samples_that_do_not_fit(name: str, shape: tuple[int, ...], text: str) -> None:
    with pytest.raises(ModelError, match=text):
        build_model(name, shape, 3, seed=0)


def test_users_own_model(users_module: str) -> None:
    model = build_model(f"{users_module}:make", (4,), 3, seed=0)
    assert split_model(model).head.names == ("3.weight", "3.bias")
    assert equal(build_model(f"{users_module}:make", (4,), 3, seed=0), model)


def test_lazy_layers_follow_the_seed(users_module: str) -> None:
    before = torch.random.get_rng_state()
    model = build_model(f"{users_module}:lazy", (4,), 3, seed=0)
    assert torch.equal(torch.random.get_rng_state(), before)
    torch.manual_seed(1)
    assert equal(build_model(f"{users_module}:lazy", (4,), 3, seed=0), model)
    model(torch.ones(2, 4)).sum().backward()
    assert split_model(model).body.names == ("features.weight", "features.bias")


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("hospital_nets.nets:absent", "AttributeError.*absent"),
        ("hospital_nets.nets:number", "returned int, not a torch.nn.Module"),
        ("hospital_nets.nets:too_few", r"gives .*2.* for a batch of 2, not 3 logits"),
        ("hospital_nets.nets:broken", "ValueError: no such layer$"),
        ("hospital_nets.torn:make", "a_library_that_is_not_there"),
        ("hospital_nets.nowhere:make", "ModuleNotFoundError"),
        (":make", "ValueError"),
        ("hospital_nets.nets:", "AttributeError"),
    ],
)
def test_users_own_model_that_fails(name: str, text: str, users_module: str) -> None:
    with pytest.raises(ModelError, match=text) as error:
        build_model(name, (4,), 3, seed=0)
    assert "\n" not in str(error.value)


def test_users_own_model_for_other_samples(users_module: str) -> None:
    with pytest.raises(ModelError, match=r"does not take samples of shape \(1, 8, 8\)") as error:
        build_model(f"{users_module}:make", (1, 8, 8), 3, seed=0)
    assert "\n" not in str(error.value)


def test_a_model_in_evaluation_mode_stays_so(monkeypatch: pytest.MonkeyPatch) -> None:
    make: Callable[..., nn.Module] = lambda shape, outputs: nn.Linear(4, 3).eval()  # noqa: E731
    monkeypatch.setattr(torchvision.models, "somebodys", make, raising=False)
    assert not build_model("torchvision.models:somebodys", (4,), 3, seed=0).training
