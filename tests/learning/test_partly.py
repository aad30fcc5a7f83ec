"""Pausing between two gradient steps and going on, in the same process or another, changes nothing at all."""

import copy
from collections.abc import Callable, Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flop_p2p.config import TrainingSettings
from flop_p2p.learning import Learner, Partway, Phase, Samples, Trainee, predict

MakeSamples = Callable[..., Samples]
StateOf = Callable[[nn.Module], dict[str, Tensor]]

LABELS = [0, 1, 2] * 12
HEAD = ("4.weight", "4.bias")
STEPS = 5  # a round of 36 samples in batches of 8, the last of 4

VARIANTS = [
    ("joint", {"optimizer": "sgd"}),
    ("joint", {"optimizer": "adam", "optimizer_state": "reset"}),
    ("joint", {"optimizer": "adamw", "schedule": "cosine", "sampling": "balanced"}),
    ("alternating", {"optimizer": "sgd", "weight_decay": 0.1}),
    ("alternating", {"optimizer": "adam"}),
    ("head", {"optimizer": "adam"}),
]


def network() -> nn.Module:
    """With BatchNorm, whose statistics a frozen body keeps, and dropout, which draws random numbers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.4), nn.Linear(8, 3))


def learner(model: nn.Module, samples: Samples, **settings: object) -> Learner:
    values = TrainingSettings(**{"batch_size": 8, "lr": 0.05, "rounds": 3, **settings})  # type: ignore[arg-type]
    return Learner("north", Trainee(model, HEAD, values), samples, np.arange(len(samples.labels)), values, 7)


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(tensor, second[name]) for name, tensor in first.items())


def everything(training: Learner) -> dict[str, Tensor]:
    """Model and optimizer, copied."""
    trainee = training.trainee
    state = {**trainee.model.state_dict(), "optimizer": trainee.optimizer.state}
    return {name: tensor.detach().clone() for name, tensor in state.items()}


@pytest.fixture(scope="module")
def samples(make_samples: MakeSamples) -> Samples:
    """36 rows of 3 classes."""
    return make_samples(LABELS)


@pytest.mark.parametrize(("phase", "settings"), VARIANTS)
def test_a_pause_after_every_step_changes_nothing(phase: Phase, settings: dict[str, object], samples: Samples) -> None:
    whole, paused = learner(network(), samples, **settings), learner(network(), samples, **settings)
    for round_index in range(3):
        expected = whole.train(round_index, phase)
        result: float | Partway | None = None
        pauses = 0
        while not isinstance(result, float):
            result = paused.train_partly(round_index, phase, result, lambda: True)
            torch.rand(3)  # something else draws from the same generator in between,
            predict(paused.trainee.model, samples, np.arange(4))  # and leaves the model in evaluation mode
            pauses += isinstance(result, Partway)
        assert pauses == STEPS - 1
        assert result == expected
        assert same(everything(whole), everything(paused))


@pytest.mark.parametrize("stop", [1, 2, 3, 4])
@pytest.mark.parametrize(("phase", "settings"), VARIANTS)
def test_another_process_goes_on_exactly(
    phase: Phase, settings: dict[str, object], stop: int, samples: Samples
) -> None:
    whole, first = learner(network(), samples, **settings), learner(network(), samples, **settings)
    whole.train(0, phase)
    first.train(0, phase)
    expected = whole.train(1, phase)

    def after() -> Iterator[bool]:
        yield from [False] * (stop - 1)
        yield True

    answers = after()
    partway = first.train_partly(1, phase, None, lambda: next(answers))
    assert isinstance(partway, Partway)
    assert partway.step == stop
    stored = copy.deepcopy(partway)
    second = learner(network(), samples, **settings)  # nothing of the first is left but what a checkpoint holds
    second.trainee.model.load_state_dict(first.trainee.model.state_dict())
    second.trainee.optimizer.state.copy_(first.trainee.optimizer.state)
    torch.manual_seed(99)
    assert second.train_partly(1, phase, stored, lambda: False) == expected
    assert same(everything(whole), everything(second))


def test_without_its_random_state_a_round_would_end_otherwise(samples: Samples) -> None:
    """The tests above can fail: dropout makes the random state count."""
    results = []
    for forget in (False, True):
        training = learner(network(), samples)
        partway = training.train_partly(0, "joint", None, lambda: True)
        assert isinstance(partway, Partway)
        if forget:
            torch.manual_seed(1)
            partway = Partway(partway.losses, (torch.get_rng_state(),))
        results.append(training.train_partly(0, "joint", partway, lambda: False))
    assert results[0] != results[1]


def test_the_last_step_ends_the_round(samples: Samples) -> None:
    asked = []

    def pause() -> bool:
        asked.append(len(asked))
        return False

    assert isinstance(learner(network(), samples).train_partly(0, "joint", None, pause), float)
    assert len(asked) == STEPS - 1


def test_a_site_that_lost_samples_ends_the_round_it_was_in(samples: Samples) -> None:
    training = learner(network(), samples)
    partway = training.train_partly(0, "joint", None, iter([False, False, True]).__next__)
    assert isinstance(partway, Partway)
    fewer = learner(network(), samples, batch_size=18)
    before = everything(fewer)
    assert fewer.train_partly(0, "joint", partway, lambda: False) == pytest.approx(float(partway.losses[:2].mean()))
    assert same(before, everything(fewer))
