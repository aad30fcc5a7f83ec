"""Local training: determinism, phases, optimizers and their state, schedules, divergence, augmentation."""

from collections import deque
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from flop_p2p.config import TrainingSettings
from flop_p2p.errors import TrainingError
from flop_p2p.learning import Learner, Phase, Samples, Trainee, evaluate_logits, log_prior, predict
from flop_p2p.partial import bind, flatten, split_model

MakeSamples = Callable[..., Samples]
Make = Callable[[], nn.Module]
StateOf = Callable[[nn.Module], dict[str, Tensor]]
State = dict[str, Tensor]

HEAD = ("3.weight", "3.bias")
BODY = ("0.weight", "1.weight", "1.bias")
LABELS = [0, 1, 2] * 12


def learner(model: nn.Module, samples: Samples, name: str = "north", seed: int = 0, **settings: object) -> Learner:
    values = TrainingSettings(**{"batch_size": 8, "lr": 0.05, **settings})  # type: ignore[arg-type]
    return Learner(name, Trainee(model, HEAD, values), samples, np.arange(len(samples.labels)), values, seed)


def after_each_step(training: Learner, monkeypatch: pytest.MonkeyPatch, hook: Callable[[float], None]) -> None:
    """Call ``hook`` with the learning rate after every gradient step."""
    optimizer = training.trainee.optimizer
    step = optimizer.step

    def watched(lr: float) -> None:
        step(lr)
        hook(lr)

    monkeypatch.setattr(optimizer, "step", watched)


def changed(before: State, model: nn.Module) -> set[str]:
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


def same(first: State, second: State) -> bool:
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture(scope="module")
def samples(make_samples: MakeSamples) -> Samples:
    """36 rows of 3 classes."""
    return make_samples(LABELS)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_training_learns(optimizer: str, samples: Samples, norm_net: Make) -> None:
    model = norm_net()
    training = learner(model, samples, optimizer=optimizer)
    losses = [training.train(round_index) for round_index in range(10)]
    assert losses[-1] < losses[0] / 2
    logits = predict(model, samples, np.arange(36))
    assert evaluate_logits(logits, samples.labels.numpy(), samples.task)["accuracy"] > 0.9


def test_the_same_seed_gives_the_same_weights(samples: Samples, norm_net: Make, state_of: StateOf) -> None:
    results = []
    for global_seed in (1, 2):
        model = norm_net()
        model.insert(3, nn.Dropout(0.5))
        settings = TrainingSettings()
        trainee = Trainee(model, ("4.weight", "4.bias"), settings)
        training = Learner("north", trainee, samples, np.arange(36), settings, 7)
        torch.manual_seed(global_seed)
        losses = [training.train(round_index) for round_index in range(2)]
        results.append((losses, state_of(model)))
    assert results[0][0] == results[1][0]
    assert same(results[0][1], results[1][1])


@pytest.mark.parametrize("other", [{"seed": 1}, {"name": "south"}, {"round_index": 1}])
def test_seed_site_and_round_decide_the_order(other: dict, samples: Samples, norm_net: Make, state_of: StateOf) -> None:
    states = []
    for options in ({}, other):
        model, rest = norm_net(), {key: value for key, value in options.items() if key != "round_index"}
        learner(model, samples, **rest).train(options.get("round_index", 0))
        states.append(state_of(model))
    assert not same(*states)


def test_loss_is_the_mean_over_steps(samples: Samples, norm_net: Make) -> None:
    model = norm_net()
    training = learner(model, samples, lr=1e-12, momentum=0, batch_size=12)
    with torch.no_grad():
        logits = model.train()(samples.batch(torch.arange(36))[0])
        everything = float(nn.functional.cross_entropy(logits, samples.labels))
    assert training.train(0) == pytest.approx(everything, rel=0.1)  # BatchNorm normalizes each batch by itself
    assert learner(norm_net(), samples, lr=1e-12, batch_size=36).train(0) == pytest.approx(everything, rel=1e-5)


def test_one_step_is_the_step_of_plain_sgd(samples: Samples, norm_net: Make) -> None:
    model, plain = norm_net(), norm_net()
    learner(model, samples, batch_size=36, lr=0.5, weight_decay=0.1).train(0)
    inputs, labels = samples.batch(torch.arange(36))
    nn.functional.cross_entropy(plain(inputs), labels).backward()
    for name, parameter in plain.named_parameters():
        expected = parameter - 0.5 * (parameter.grad + 0.1 * parameter)
        torch.testing.assert_close(dict(model.named_parameters())[name], expected, rtol=1e-4, atol=1e-6)


def test_joint_training_changes_body_and_head(samples: Samples, norm_net: Make, state_of: StateOf) -> None:
    model = norm_net()
    before = state_of(model)
    learner(model, samples).train(0)
    assert {*HEAD, *BODY} <= changed(before, model)


def test_training_after_an_evaluation_is_training(samples: Samples, norm_net: Make, state_of: StateOf) -> None:
    """An evaluation between two rounds changes nothing: the model goes back to training mode."""
    states = []
    for evaluates in (False, True):
        model = norm_net()
        training = learner(model, samples)
        training.train(0)
        if evaluates:
            predict(model, samples, np.arange(36))
        training.train(1)
        states.append(state_of(model))
    assert same(*states)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw"])
def test_head_phase_leaves_body_parameters_bit_for_bit(
    optimizer: str, samples: Samples, norm_net: Make, state_of: StateOf
) -> None:
    model = norm_net()
    training = learner(model, samples, optimizer=optimizer, weight_decay=0.1)
    training.train(0)  # so that the body has momentum
    before = state_of(model)
    training.train(1, "head")
    assert set(HEAD) <= changed(before, model)
    assert not set(BODY) & changed(before, model)
    assert all(parameter.requires_grad for parameter in model.parameters())


def phases(model: nn.Module, training: Learner, monkeypatch: pytest.MonkeyPatch) -> list[set[str]]:
    """Which parameters each gradient step of an alternating round changed."""
    steps: list[set[str]] = []
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}

    def after_step(*_: object) -> None:
        steps.append({name for name, value in model.named_parameters() if not torch.equal(value, before[name])})
        before.update((name, value.detach().clone()) for name, value in model.named_parameters())

    after_each_step(training, monkeypatch, after_step)
    training.train(0, "alternating")
    return steps


@pytest.mark.parametrize(("batch_size", "head_steps", "body_steps"), [(6, 3, 3), (8, 3, 2), (18, 1, 1), (36, 1, 0)])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_alternating_trains_the_head_first_and_then_the_body(
    optimizer: str,
    batch_size: int,
    head_steps: int,
    body_steps: int,
    samples: Samples,
    norm_net: Make,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = norm_net()
    training = learner(model, samples, batch_size=batch_size, optimizer=optimizer, weight_decay=0.01)
    assert phases(model, training, monkeypatch) == [set(HEAD)] * head_steps + [set(BODY)] * body_steps


@pytest.mark.parametrize("phase", ["joint", "alternating", "head"])
def test_training_stays_within_the_bound_vectors(phase: Phase, samples: Samples, norm_net: Make) -> None:
    model = norm_net()
    split = split_model(model)
    body, head = flatten(model, split.body), flatten(model, split.head)
    bind(model, split.body, body)
    bind(model, split.head, head)
    start = body.clone(), head.clone()
    training = learner(model, samples)
    for round_index in range(2):
        training.train(round_index, phase)
    assert torch.equal(flatten(model, split.body), body)
    assert torch.equal(flatten(model, split.head), head)
    assert torch.equal(start[0], body) == (phase == "head")  # running statistics included
    assert not torch.equal(start[1], head)


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_optimizer_state_kept_or_reset(optimizer: str, samples: Samples, norm_net: Make, state_of: StateOf) -> None:
    states: dict[str, State] = {}
    for how in ("keep", "reset", "new optimizer"):
        model = norm_net()
        training = learner(model, samples, optimizer=optimizer, optimizer_state="reset" if how == "reset" else "keep")
        training.train(0)
        if how == "new optimizer":
            training = learner(model, samples, optimizer=optimizer)
        training.train(1)
        states[how] = state_of(model)
    assert same(states["reset"], states["new optimizer"])
    assert not same(states["keep"], states["reset"])


def test_schedule_sets_the_learning_rate(samples: Samples, norm_net: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    training = learner(norm_net(), samples, lr=0.04, schedule="step:2:0.5", rounds=6, local_steps=1)
    rates: list[float] = []
    after_each_step(training, monkeypatch, rates.append)
    for round_index in range(6):
        training.train(round_index)
    assert rates == pytest.approx([0.04, 0.04, 0.02, 0.02, 0.01, 0.01])
    cosine = learner(norm_net(), samples, lr=0.04, schedule="cosine", rounds=4, local_steps=1)
    after_each_step(cosine, monkeypatch, rates.append)
    cosine.train(2)
    assert rates[6:] == pytest.approx([0.02])


@pytest.mark.parametrize("how", [{}, {"momentum": 0.0}, {"optimizer": "adam"}, {"optimizer": "adamw"}])
def test_steps_are_those_of_the_optimizers_of_torch(
    how: dict[str, Any], samples: Samples, norm_net: Make, state_of: StateOf
) -> None:
    model, reference = norm_net(), norm_net()
    settings = TrainingSettings(**how, batch_size=8, weight_decay=0.1, lr=0.05)
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    extra = {"momentum": settings.momentum} if settings.optimizer == "sgd" else {}
    expected = kinds[settings.optimizer](reference.parameters(), lr=0.05, weight_decay=0.1, fused=True, **extra)
    optimizer = Trainee(model, HEAD, settings).optimizer
    for start in range(0, 32, 8):
        inputs, labels = samples.batch(torch.arange(start, start + 8))
        for net in (model, reference):
            nn.functional.cross_entropy(net(inputs), labels).backward()
        optimizer.step(0.05)
        expected.step()
        optimizer.clear_gradients()
        expected.zero_grad()
    assert same(state_of(model), state_of(reference))


def test_a_loss_that_is_not_finite_names_site_and_round(samples: Samples, norm_net: Make) -> None:
    model = norm_net()
    model[3].bias.data[0] = torch.nan
    with pytest.raises(TrainingError, match=r"site north, round 3: the loss is nan.*--lr"):
        learner(model, samples).train(2)


def test_divergence_is_found_within_a_few_rounds(samples: Samples) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3))
    training = learner(model, samples, lr=1e4)
    with pytest.raises(TrainingError, match=r"site north, round \d+: .*diverged"):
        deque(map(training.train, range(20)), maxlen=0)


def test_weights_that_overflow_in_the_last_step_are_found_at_once(samples: Samples, norm_net: Make) -> None:
    model = norm_net()
    training = learner(model, samples, batch_size=36, momentum=0, weight_decay=1e30, lr=1e30)
    with pytest.raises(TrainingError, match="site north, round 1: weights are NaN or infinite"):
        training.train(0)


@pytest.mark.parametrize("phase", ["joint", "alternating", "head"])
def test_frozen_parameters_stay_frozen(phase: Phase, samples: Samples, norm_net: Make, state_of: StateOf) -> None:
    model = norm_net()
    frozen = model[0].weight.requires_grad_(False)
    before = state_of(model)
    learner(model, samples, weight_decay=0.1, optimizer="adamw").train(0, phase)
    assert torch.equal(frozen, before["0.weight"])
    assert not frozen.requires_grad
    assert set(HEAD) <= changed(before, model)


@pytest.mark.parametrize("phase", ["joint", "alternating", "head"])
def test_nothing_to_train_is_an_error(phase: Phase, samples: Samples, norm_net: Make) -> None:
    model = norm_net()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(phase == "alternating" and name in HEAD)
    with pytest.raises(TrainingError, match="site north: all weights that this phase would train are frozen"):
        learner(model, samples).train(0, phase)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 8), (5, 1)])
def test_batch_norm_on_one_sample_is_an_error(
    count: int, batch_size: int, make_samples: MakeSamples, norm_net: Make
) -> None:
    training = learner(norm_net(), make_samples([0] * count), batch_size=batch_size)
    with pytest.raises(TrainingError, match=r"site north: BatchNorm .*--batch-size 2"):
        training.train(0)


def test_one_sample_is_enough_without_batch_norm(make_samples: MakeSamples) -> None:
    assert np.isfinite(learner(nn.Linear(4, 3), make_samples([1])).train(0))


def test_other_errors_of_a_model_are_not_hidden(samples: Samples) -> None:
    class Refusing(nn.Linear):
        def forward(self, inputs: Tensor) -> Tensor:
            raise ValueError("not today")

    with pytest.raises(ValueError, match="not today"):
        learner(Refusing(4, 3), samples).train(0)


def test_only_the_sites_own_samples_are_read(make_samples: MakeSamples, norm_net: Make, state_of: StateOf) -> None:
    states = []
    for spoil in (False, True):
        samples, model = make_samples(LABELS), norm_net()
        own = np.arange(0, 36, 2)
        if spoil:
            samples.inputs[1::2] = torch.nan
        settings = TrainingSettings(batch_size=4)
        Learner("north", Trainee(model, HEAD, settings), samples, own, settings, 0).train(0)
        states.append(state_of(model))
    assert same(*states)


def test_the_number_of_steps_can_be_given(samples: Samples, norm_net: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = TrainingSettings(local_steps=3, batch_size=4)
    training = Learner("pooled", Trainee(norm_net(), HEAD, settings), samples, np.arange(36), settings, 0, steps=15)
    rates: list[float] = []
    after_each_step(training, monkeypatch, rates.append)
    training.train(0)
    assert len(rates) == 15


class Watching(nn.Module):
    """A linear classifier that remembers what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2 * 6 * 5 // 2, 3)
        self.seen: list[Tensor] = []

    def forward(self, inputs: Tensor) -> Tensor:
        self.seen.append(inputs.clone())
        logits: Tensor = self.layer(inputs.flatten(1))
        return logits


def test_augmentation_is_applied_and_follows_the_seed(make_samples: MakeSamples) -> None:
    images = make_samples(LABELS, (1, 6, 5))

    def shown(seed: int, names: tuple[str, ...] = ("horizontal-flip",)) -> Tensor:
        model = Watching()
        learner(model, images, seed=seed, augmentation=names, batch_size=36).train(0)
        return torch.cat(model.seen)

    plain, flipped = shown(0, ()), shown(0)
    turned = [not torch.equal(*pair) for pair in zip(flipped, plain, strict=True)]
    assert 5 < sum(turned) < 31
    assert all(
        torch.equal(image, original.flip(-1) if turn else original)
        for image, original, turn in zip(flipped, plain, turned, strict=True)
    )
    torch.manual_seed(99)
    assert torch.equal(shown(0), flipped)
    assert not torch.equal(shown(1), flipped)


def test_evaluation_is_not_augmented(make_samples: MakeSamples) -> None:
    images, model = make_samples(LABELS, (1, 6, 5)), Watching()
    learner(model, images, augmentation=("crop:2",)).train(0)
    model.seen.clear()
    predict(model, images, np.arange(36))
    assert torch.equal(model.seen[0], images.batch(torch.arange(36))[0])


@pytest.mark.parametrize("head_loss", ["cross-entropy", "logit-adjusted"])
@pytest.mark.parametrize("extra", [{}, {"class_weights": "balanced"}, {"sampling": "balanced"}])
def test_several_labels_from_end_to_end(
    head_loss: str, extra: dict, multilabel_samples: Samples, norm_net: Make
) -> None:
    model = norm_net()
    training = learner(model, multilabel_samples, head_loss=head_loss, optimizer="adam", **extra)
    losses = [training.train(round_index, "alternating") for round_index in range(15)]
    prior = log_prior(multilabel_samples.labels, multilabel_samples).numpy() if head_loss == "logit-adjusted" else None
    logits = predict(model, multilabel_samples, np.arange(90))
    found = evaluate_logits(logits, multilabel_samples.labels.numpy(), "multilabel", prior)
    assert losses[-1] < 0.7 * losses[0]
    assert found["balanced_accuracy"] > 0.85
    assert found["auroc"] > 0.95


def test_logit_adjustment_helps_the_rare_classes(make_samples: MakeSamples) -> None:
    """Without the prior, the adjusted classifier decides for rare classes more often than the plain one."""
    skewed = make_samples([0] * 900 + [1] * 60 + [2] * 40, seed=4)
    skewed.inputs += torch.randn(1000, 4, generator=torch.Generator().manual_seed(0))
    figures = {}
    for head_loss in ("cross-entropy", "logit-adjusted"):
        torch.manual_seed(0)
        model = nn.Linear(4, 3)
        training = learner(model, skewed, head_loss=head_loss, lr=0.1, batch_size=100)
        for round_index in range(20):
            training.train(round_index)
        prior = log_prior(skewed.labels, skewed).numpy() if head_loss == "logit-adjusted" else None
        figures[head_loss] = evaluate_logits(
            predict(model, skewed, np.arange(1000)), skewed.labels.numpy(), "multiclass", prior
        )
    plain, adjusted = figures["cross-entropy"], figures["logit-adjusted"]
    assert adjusted["balanced_accuracy"] > plain["balanced_accuracy"] + 0.1
    assert adjusted["accuracy"] > adjusted["accuracy_without_prior"]


def test_alternating_with_one_step_a_round_takes_turns(samples: Samples, norm_net: Make) -> None:
    model = norm_net()
    split = split_model(model)
    training = learner(model, samples, local_steps=1)
    moved = []
    for round_index in range(4):
        before = flatten(model, split.body), flatten(model, split.head)
        training.train(round_index, "alternating")
        after = flatten(model, split.body), flatten(model, split.head)
        moved.append([not torch.equal(old, new) for old, new in zip(before, after, strict=True)])
    assert moved == [[False, True], [True, False]] * 2
