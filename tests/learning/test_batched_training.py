"""Sites that train at once end where each would alone, but for rounding."""

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flop_p2p.config import TrainingSettings
from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.learning import Learner, Lockstep, Phase, Samples, Stack, Trainee
from flop_p2p.models import build_model

MakeSamples = Callable[..., Samples]
Make = Callable[[], nn.Module]

UNEVEN = [25, 8, 17, 9, 12]  # batches of 8: 3 of 8 and one that takes the last, 1, 2 and so on


class Group:
    """Sites with consecutive samples and weights of their own, twice: to train one after the other, and at once."""

    def __init__(self, make: Make, samples: Samples, sizes: Sequence[int] = UNEVEN, **settings: Any) -> None:
        self.settings = TrainingSettings(**{"batch_size": 8, "lr": 0.05, **settings})
        ends = np.cumsum(sizes)
        self.indices = [np.arange(end - size, end) for end, size in zip(ends, sizes, strict=True)]
        self.samples = samples
        generator = torch.Generator().manual_seed(3)
        self.models = [make() for _ in sizes]
        for model in self.models:
            for parameter in model.parameters():
                parameter.data += 0.01 * torch.randn(parameter.shape, generator=generator)
        self.head = {name for name, _ in list(self.models[0].named_parameters())[-2:]}
        self.alone = [
            self._learner(site, Trainee(model, self.head, self.settings)) for site, model in enumerate(self.models)
        ]
        trainee = Trainee(make(), self.head, self.settings)
        self.together = [self._learner(site, trainee) for site in range(len(sizes))]
        states = [model.state_dict() for model in self.models]
        tensors = {name: torch.stack([state[name] for state in states]) for name in states[0]}
        self.stack = Stack(tensors, torch.zeros(len(sizes), trainee.optimizer.numbers))
        self.lockstep = Lockstep(trainee, samples, self.settings)

    def _learner(self, site: int, trainee: Trainee) -> Learner:
        return Learner(f"site-{site}", trainee, self.samples, self.indices[site], self.settings, 7)

    def train(self, phase: Phase, rounds: int = 1) -> tuple[list[float], list[float]]:
        """Losses of the last round, one after the other and at once."""
        for round_index in range(rounds):
            alone = [learner.train(round_index, phase) for learner in self.alone]
            together = self.lockstep.train(self.together, self.stack, round_index, phase)
        return alone, together

    def difference(self) -> float:
        """The largest relative distance between a tensor of a site, or its optimizer's state, and its counterpart."""
        worst = 0.0
        for site, (model, learner) in enumerate(zip(self.models, self.alone, strict=True)):
            pairs = [(tensor, self.stack.tensors[name][site]) for name, tensor in model.state_dict().items()]
            pairs.append((learner.trainee.optimizer.state, self.stack.optimizer[site]))
            worst = max(worst, *(distance(*pair) for pair in pairs if pair[0].numel()))
        return worst


def distance(expected: Tensor, found: Tensor) -> float:
    if not expected.is_floating_point():
        return 0.0 if torch.equal(expected, found) else np.inf
    return float((expected - found).norm() / expected.norm().clamp(min=1e-3))


@pytest.fixture(scope="module")
def table(make_samples: MakeSamples) -> Samples:
    """80 rows of 3 classes, class 2 only at the first site."""
    return make_samples([0, 1, 2] * 7 + [0, 1] * 30)


@pytest.fixture(scope="module")
def images(make_samples: MakeSamples) -> Samples:
    """80 grey images of 8 x 8 pixels."""
    return make_samples([0, 1, 2] * 26 + [0, 1], (1, 8, 8))


def mlp() -> nn.Module:
    return build_model("mlp", (4,), 3, 0)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.0, "weight_decay": 0.1},
        {"optimizer": "adam", "schedule": "cosine", "rounds": 4},
        {"optimizer": "adamw", "weight_decay": 0.1, "optimizer_state": "reset"},
        {"local_epochs": 2, "class_weights": "balanced"},
        {"head_loss": "logit-adjusted", "local_steps": 5},
        {"sampling": "balanced"},
    ],
    ids=str,
)
@pytest.mark.parametrize("phase", ["joint", "alternating", "head"])
@pytest.mark.parametrize("net", ["mlp", "norm"])
def test_together_as_alone(table: Samples, norm_net: Make, net: str, phase: Phase, settings: dict[str, Any]) -> None:
    """Uneven sites: with BatchNorm, whose statistics and counters are compared too, and without."""
    group = Group(mlp if net == "mlp" else norm_net, table, **settings)
    before = {name: tensor.clone() for name, tensor in group.stack.tensors.items()}
    alone, together = group.train(phase, rounds=2)
    assert group.difference() < 1e-4
    assert together == pytest.approx(alone, rel=1e-4)
    moved = {name for name, tensor in group.stack.tensors.items() if not torch.equal(tensor, before[name])}
    assert moved >= group.head
    assert (moved == group.head) == (phase == "head")


def test_images_together_as_alone(images: Samples) -> None:
    group = Group(lambda: build_model("small-cnn", (1, 8, 8), 3, 0), images)
    alone, together = group.train("joint")
    assert group.difference() < 1e-5
    assert together == pytest.approx(alone, rel=1e-5)


def test_a_deep_network_with_batch_norm_together_as_alone(images: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64: of a change by 1e-7 in its weights a resnet18 makes one of 1e-3, also when trained alone."""
    load = Samples.batch

    def precise(self: Samples, indices: Tensor) -> tuple[Tensor, Tensor]:
        inputs, labels = load(self, indices)
        return inputs.double(), labels

    monkeypatch.setattr(Samples, "batch", lambda self, indices, _=None: precise(self, indices))
    group = Group(lambda: build_model("resnet18", (1, 8, 8), 3, 0).double(), images, [12, 9], momentum=0.0)
    alone, together = group.train("joint")
    assert group.difference() < 1e-10
    assert together == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize("settings", [{}, {"class_weights": "balanced"}, {"head_loss": "logit-adjusted"}], ids=str)
def test_several_labels_together_as_alone(multilabel_samples: Samples, settings: dict[str, Any]) -> None:
    group = Group(mlp, multilabel_samples, **settings)
    alone, together = group.train("joint")
    assert group.difference() < 1e-5
    assert together == pytest.approx(alone, rel=1e-5)


def test_weights_that_the_loss_does_not_depend_on_stay(table: Samples) -> None:
    class Spare(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spare = nn.Linear(3, 3)
            self.used = nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.used(inputs)
            return logits

    group = Group(Spare, table, weight_decay=0.5)
    before = group.stack.tensors["spare.weight"].clone()
    group.train("joint", rounds=2)
    assert torch.equal(group.stack.tensors["spare.weight"], before)
    assert group.difference() < 1e-5


def test_frozen_and_tied_weights(table: Samples) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fixed = nn.Linear(4, 4)
            self.fixed.weight.requires_grad_(False)
            self.first = nn.Linear(4, 4)
            self.second = nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.head = nn.Linear(4, 3)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.head(self.second(self.first(self.fixed(inputs))))
            return logits

    group = Group(Tied, table)
    del group.stack.tensors["second.weight"]  # a population holds tied weights once
    before = group.stack.tensors["fixed.weight"].clone()
    alone = [learner.train(0) for learner in group.alone]
    together = group.lockstep.train(group.together, group.stack, 0, "joint")
    assert together == pytest.approx(alone, rel=1e-5)
    assert torch.equal(group.stack.tensors["fixed.weight"], before)
    for site, model in enumerate(group.models):
        assert distance(model.state_dict()["first.weight"], group.stack.tensors["first.weight"][site]) < 1e-5


@pytest.mark.parametrize(
    ("layer", "settings", "reason"),
    [(nn.Dropout(0.5), {}, "random"), (nn.Identity(), {"augmentation": ("crop:1",)}, "augmentation")],
)
def test_random_things_are_refused_in_a_line(
    images: Samples, layer: nn.Module, settings: dict[str, Any], reason: str
) -> None:
    with pytest.raises(ConfigError, match=rf"--sites-at-once: .*{reason}.*take --sites-at-once 1$") as found:
        Group(lambda: nn.Sequential(nn.Flatten(), layer, nn.Linear(64, 3)), images, **settings)
    assert "\n" not in str(found.value)


def test_what_cannot_be_vectorized_is_refused(table: Samples) -> None:
    class Deciding(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            return super().forward(inputs if inputs.sum().item() > 0 else -inputs)

    with pytest.raises(ConfigError, match=r"--sites-at-once 1$"):
        Group(lambda: Deciding(4, 3), table)


@pytest.mark.parametrize("name", ["0.weight", "3.bias"])
def test_divergence_names_the_site(table: Samples, norm_net: Make, name: str) -> None:
    group = Group(norm_net, table)
    group.models[2].state_dict()[name].fill_(torch.nan)
    group.stack.tensors[name][2] = torch.nan
    with pytest.raises(TrainingError) as alone:
        group.alone[2].train(3)
    with pytest.raises(TrainingError, match=re.escape(str(alone.value))):
        group.lockstep.train(group.together, group.stack, 3, "joint")
    assert "site-2, round 4: the loss is nan" in str(alone.value)


def test_weights_that_overflow_in_the_last_step_name_the_site(table: Samples, norm_net: Make) -> None:
    group = Group(norm_net, table, batch_size=80, momentum=0, weight_decay=1e30, lr=1e30)
    with pytest.raises(TrainingError, match="site site-0, round 1: weights are NaN or infinite"):
        group.lockstep.train(group.together, group.stack, 0, "joint")


def test_batch_norm_on_one_sample_names_the_site(table: Samples, norm_net: Make) -> None:
    group = Group(norm_net, table, [8, 1])
    with pytest.raises(TrainingError, match=r"site site-1: BatchNorm .*--batch-size 2"):
        group.lockstep.train(group.together, group.stack, 0, "joint")


def test_nothing_to_train_is_an_error(table: Samples) -> None:
    def frozen() -> nn.Module:
        return mlp().requires_grad_(False)

    group = Group(frozen, table)
    with pytest.raises(TrainingError, match="site site-0: all weights that this phase would train are frozen"):
        group.lockstep.train(group.together, group.stack, 0, "joint")
