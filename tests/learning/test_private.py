"""Differentially private training: clipping, noise, Poisson sampling, patients, phases, pauses."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from opacus import GradSampleModule
from opacus.optimizers import DPOptimizer
from torch import Tensor, nn
from torch.nn import functional as F

from flop_p2p.config import PrivacySettings, TrainingSettings
from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.learning import Draws, Partway, PrivateLearner, Samples, SecretDraws, SeededDraws, Trainee
from flop_p2p.learning.poisson import build_sampling
from flop_p2p.models import build_model

MakeSamples = Callable[..., Samples]
HEAD = ("4.weight", "4.bias")


def net() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        return nn.Sequential(nn.Linear(4, 8), nn.GroupNorm(2, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 3))


@pytest.fixture(scope="module")
def samples(make_samples: MakeSamples) -> Samples:
    """60 rows of 3 classes."""
    return make_samples([0, 1, 2] * 20)


def learner(
    model: nn.Module,
    samples: Samples,
    noise: float = 1.0,
    norm: float = 1.0,
    draws: Draws | None = None,
    unit: Any = "record",
    **values: Any,
) -> PrivateLearner:
    training = TrainingSettings(**{"batch_size": 20, "lr": 0.05, "momentum": 0.0, **values})
    return PrivateLearner(
        "north",
        Trainee(model, HEAD, training),
        samples,
        np.arange(len(samples.labels)),
        training,
        7,
        privacy=PrivacySettings(noise_multiplier=noise, clipping_norm=norm, unit=unit),
        draws=draws or SeededDraws(7, "north"),
    )


def gradient_of_one(model: nn.Module, samples: Samples, position: int) -> dict[str, Tensor]:
    model.zero_grad()
    inputs, labels = samples.batch(torch.tensor([position]))
    F.cross_entropy(model(inputs), labels).backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def length(gradients: dict[str, Tensor]) -> float:
    return float(torch.cat([gradient.flatten() for gradient in gradients.values()]).norm())


# Clipping


@pytest.mark.parametrize("norm", [0.05, 0.5, 100.0])
def test_the_sum_is_that_of_a_loop_over_samples(norm: float, samples: Samples) -> None:
    model, expected, losses = net(), {}, 0.0
    training = learner(model, samples, norm=norm)
    positions = np.array([3, 50, 3, 7, 22])
    for position in positions:
        own = gradient_of_one(model, samples, position)
        factor = min(1.0, norm / length(own))
        expected = {name: expected.get(name, 0) + factor * gradient for name, gradient in own.items()}
        inputs, labels = samples.batch(torch.tensor([position]))
        losses += float(F.cross_entropy(model(inputs), labels).detach())
    total, loss = training.clipped(positions)
    assert total.keys() == dict(model.named_parameters()).keys()
    for name, gradient in total.items():
        torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6)
    assert float(loss) == pytest.approx(losses, rel=1e-4)


@given(norm=st.floats(1e-3, 10), scale=st.floats(0.01, 100), position=st.integers(0, 59))
@settings(max_examples=25, deadline=None)
def test_no_sample_adds_more_than_the_clipping_norm(norm: float, scale: float, position: int) -> None:
    model = net()
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(scale)
    total, _ = learner(model, SAMPLES, norm=norm).clipped(np.array([position]))
    assert length(total) <= norm * (1 + 1e-5)


def test_one_norm_over_body_and_head(samples: Samples) -> None:
    model = net()
    total, _ = learner(model, samples, norm=0.1).clipped(np.array([4]))
    body = {name: gradient for name, gradient in total.items() if name not in HEAD}
    head = {name: total[name] for name in HEAD}
    assert length(total) == pytest.approx(0.1, rel=1e-3)
    assert length(body) < 0.0999
    assert length(head) < 0.0999


def test_samples_taken_in_parts_give_the_same_sum(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    whole, _ = learner(net(), samples).clipped(np.arange(10))
    monkeypatch.setattr("flop_p2p.learning.private.MOST_AT_ONCE", 3)
    parts, _ = learner(net(), samples).clipped(np.arange(10))
    for name, gradient in parts.items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-5, atol=1e-6)


class Shared(nn.Module):
    """Drops all that a linear layer gives, or nothing, as stochastic depth does; torch.func can't draw it by sample."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 3, bias=False)
        nn.init.zeros_(self.linear.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        outputs: Tensor = self.linear(inputs)
        return outputs * torch.empty(1).bernoulli_(0.5)


def test_dropout_that_samples_share_is_that_of_the_whole_step(
    samples: Samples, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else one more sample would move others to another part with another mask: more than the norm."""
    monkeypatch.setattr("flop_p2p.learning.private.MOST_AT_ONCE", 2)
    training = learner(Shared(), samples, norm=0.1, local_steps=1)
    training.try_out()
    position, lengths = np.array([3]), set()
    for seed in range(12):
        torch.manual_seed(seed)
        lengths.add(round(length(training.clipped(np.repeat(position, 7))[0]), 3))
    assert lengths == {0.0, 0.7}  # all seven samples, or none


def test_augmentation_goes_on_beside_shared_dropout(samples: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.learning.private.MOST_AT_ONCE", 2)
    training, drawn = learner(Shared(), samples, local_steps=1), []

    def augment(inputs: Tensor) -> Tensor:
        drawn.append(float(torch.rand(())))
        return inputs

    training.try_out()
    monkeypatch.setattr(training, "_augment", augment)
    training.train(0)
    training.train(1)
    assert len(set(drawn)) == len(drawn) > 10


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")  # of opacus' own hooks
def test_a_step_without_noise_is_that_of_opacus(samples: Samples) -> None:
    model, theirs = net(), GradSampleModule(net())
    plain = torch.optim.SGD(theirs.parameters(), lr=0.05)
    optimizer = DPOptimizer(plain, noise_multiplier=0.0, max_grad_norm=0.3, expected_batch_size=20)
    training = learner(model, samples, noise=1e-12, norm=0.3, local_steps=1)
    inputs, labels = samples.batch(torch.from_numpy(training.batches(0)[0]))
    F.cross_entropy(theirs(inputs), labels).backward()
    optimizer.step()
    training.train(0)
    for own, other in zip(model.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_gradients_of_backbones(name: str, make_samples: MakeSamples) -> None:
    from flop_p2p.models import replace_batch_norm

    samples = make_samples([0, 1, 2], (3, 32, 32))
    model = build_model(name, (3, 32, 32), 3, 0)
    assert replace_batch_norm(model)
    total, _ = learner(model, samples).clipped(np.arange(3))
    assert 0 < length(total) <= 3 * (1 + 1e-5)


def test_batch_norm_is_refused(samples: Samples, norm_net: Callable[[], nn.Module]) -> None:
    with pytest.raises(ConfigError, match="no gradients of single samples can be had of this model"):
        learner(norm_net(), samples).try_out()


# Noise


class Fixed(SeededDraws):
    """Draws that take part in no step, or all in each, and noise of ones."""

    def __init__(self, uniform: float) -> None:
        self.value = uniform

    def uniform(self, purpose: str, round_index: int, step: int, count: int) -> np.ndarray:
        return np.full(count, self.value)

    def normal(self, round_index: int, step: int, count: int) -> Tensor:
        return torch.ones(count)

    def generator_seed(self, round_index: int, step: int) -> int:
        return 0


def test_an_empty_batch_takes_a_step_of_noise_alone(samples: Samples) -> None:
    model = net()
    before = [weight.detach().clone() for weight in model.parameters()]
    training = learner(model, samples, noise=3.0, norm=0.5, draws=Fixed(0.999), local_steps=1)
    assert [len(batch) for batch in training.batches(0)] == [0]
    assert training.train(0) == 0.0
    for weight, own in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(weight, own - 0.05 * 3.0 * 0.5 / 20)


@pytest.mark.parametrize("draws", [SeededDraws(1, "north"), SecretDraws()], ids=["seeded", "secret"])
def test_the_noise_of_a_step_has_its_scale(draws: Draws, make_samples: MakeSamples) -> None:
    samples = make_samples([0, 1] * 10, (3, 16, 16))
    model = build_model("small-cnn", (3, 16, 16), 3, 0)
    head = [name for name, _ in model.named_parameters() if name.startswith("head")]
    training = TrainingSettings(batch_size=10, lr=1.0, momentum=0.0, local_steps=1)
    privacy = PrivacySettings(noise_multiplier=4.0, clipping_norm=0.5)
    own = Trainee(model, head, training)
    before = torch.cat([weight.detach().flatten().clone() for weight in model.parameters()])
    PrivateLearner("n", own, samples, np.arange(20), training, 7, privacy=privacy, draws=draws).train(0)
    moved = (torch.cat([weight.detach().flatten() for weight in model.parameters()]) - before).double()
    expected = 4.0 * 0.5 / 10
    # 24,000 numbers: the deviation is known to 0.5 %; clipped gradients, at most 20 x 0.5 / 10 long, add nothing to it
    assert float(moved.std()) == pytest.approx(expected, rel=0.03)
    assert float((moved / expected).pow(4).mean()) == pytest.approx(3.0, rel=0.1)


def test_secret_training_differs_each_time_and_seeded_does_not(samples: Samples) -> None:
    def weights(draws: Draws) -> Tensor:
        model = net()
        learner(model, samples, draws=draws).train(0)
        return torch.cat([weight.detach().flatten() for weight in model.parameters()])

    assert torch.equal(weights(SeededDraws(7, "north")), weights(SeededDraws(7, "north")))
    assert not torch.equal(weights(SeededDraws(7, "north")), weights(SeededDraws(7, "south")))
    assert not torch.equal(weights(SecretDraws()), weights(SecretDraws()))


# Sampling


def test_records_take_part_at_the_rate() -> None:
    sampling = build_sampling("n", np.arange(1000, 1400), None, PrivacySettings(noise_multiplier=1), 40)
    assert (sampling.units, sampling.rate, sampling.expected) == (400, 0.1, 40)
    batches = [sampling.batch(SecretDraws(), 0, step) for step in range(500)]
    assert all(len(set(batch.tolist())) == len(batch) for batch in batches)
    counts = np.bincount(np.concatenate(batches) - 1000, minlength=400)
    sizes = np.array([len(batch) for batch in batches])
    assert len(counts) == 400
    # binomial: means within five standard errors, and the variances of independent draws
    assert abs(counts.mean() - 50) < 5 * np.sqrt(500 * 0.09 / 400)
    assert 0.7 < counts.var() / (500 * 0.09) < 1.3
    assert 0.7 < sizes.var() / (400 * 0.09) < 1.3


def test_a_batch_larger_than_the_data_takes_all() -> None:
    sampling = build_sampling("n", np.arange(5), None, PrivacySettings(noise_multiplier=1), 32)
    assert sampling.rate == 1.0
    assert sampling.expected == 5
    assert sampling.batch(SecretDraws(), 0, 0).tolist() == [0, 1, 2, 3, 4]


def test_each_patient_gives_one_image_a_batch() -> None:
    patients = np.array([f"p{number}" for number in (0, 1, 1, 1, 1, 1, 1, 2, 2, 9)])
    privacy = PrivacySettings(noise_multiplier=1, unit="patient")
    sampling = build_sampling("n", np.arange(9)[::-1], patients, privacy, 1)
    assert (sampling.units, sampling.rate) == (3, 1 / 3)
    seen: list[int] = []
    for step in range(3000):
        batch = sampling.batch(SecretDraws(), 0, step)
        owners = patients[batch].tolist()
        assert len(set(owners)) == len(owners)
        seen += batch.tolist()
    counts = np.bincount(seen, minlength=10)
    assert abs(counts[0] - 1000) < 150
    assert abs(counts[1:7].sum() - 1000) < 150
    assert counts[1:7].min() > 100
    assert counts[9] == 0


def test_patients_that_nobody_knows(samples: Samples) -> None:
    with pytest.raises(ConfigError, match=r"site north: privacy\.unit = 'patient', and the data tell no patients"):
        learner(net(), samples, unit="patient")


# Rounds


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_learns_through_the_noise(optimizer: str, samples: Samples) -> None:
    training = learner(net(), samples, noise=0.5, optimizer=optimizer, local_epochs=15, batch_size=30)
    first = training.train(0)
    for round_index in range(1, 4):
        last = training.train(round_index)
    assert last < 0.8 * first


def test_alternating_moves_one_part_at_a_time(samples: Samples, state_of: Callable[..., dict[str, Tensor]]) -> None:
    model = net()
    training = learner(model, samples, local_steps=1)
    for round_index, moved in ((0, {"4.weight", "4.bias"}), (1, {"0.weight", "0.bias", "1.weight", "1.bias"})):
        before = state_of(model)
        training.train(round_index, "alternating")
        after = model.state_dict()
        assert {name for name in after if not torch.equal(after[name], before[name])} == moved


def test_a_frozen_phase_is_refused(samples: Samples) -> None:
    model = net()
    for name, weight in model.named_parameters():
        weight.requires_grad_(name in HEAD)
    training = learner(model, samples, local_steps=2)
    with pytest.raises(TrainingError, match="frozen"):
        training.train(0, "alternating")


def test_a_pause_goes_on_with_the_same_seeded_steps(samples: Samples) -> None:
    whole, parts = net(), net()
    loss = learner(whole, samples, local_steps=5).train(0)
    training, state, found = learner(parts, samples, local_steps=5), None, None
    while not isinstance(found, float):
        found = training.train_partly(0, "joint", state, lambda: True)
        if isinstance(found, Partway):
            state = found
            assert state.random == ()  # nothing of it comes into a checkpoint
    assert found == loss
    assert all(torch.equal(one, other) for one, other in zip(whole.parameters(), parts.parameters(), strict=True))


SAMPLES: Samples


@pytest.fixture(autouse=True, scope="module")
def _samples_for_hypothesis(samples: Samples) -> None:
    global SAMPLES
    SAMPLES = samples
