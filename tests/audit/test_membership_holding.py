"""What an attacker asks a body that it holds, and with which head."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import expit, softmax
from torch import nn

from flop_p2p.audit.membership.holding import Holding, confidence, fitted_confidence
from flop_p2p.audit.membership.views import Position, View
from flop_p2p.audit.membership.worlds import World, draw_candidates, train_world
from flop_p2p.config import load_experiment
from flop_p2p.learning import predict
from flop_p2p.partial import bind
from flop_p2p.simulation import load_data

Heads = dict[str, np.ndarray]


def trained(method: str, **overrides: Any) -> tuple[World, np.ndarray]:
    """A small federation, and the candidates of its first site."""
    values = {"method": method, "data.sites": 4, "data.limit_images": 200, "training.rounds": 2, "training.lr": 0.1}
    settings = load_experiment(overrides=values | overrides)
    data = load_data(settings)
    candidates = draw_candidates(data, 18, 0)
    return train_world(settings, data, candidates, 0), candidates[0].indices


def model_of(world: World, body: torch.Tensor, head: torch.Tensor | None) -> nn.Module:
    blueprint = world.simulation.blueprint
    bind(blueprint.template, blueprint.split.body, body.clone())
    if head is not None:
        bind(blueprint.template, blueprint.split.head, head.clone())
    return blueprint.template


def asked(world: World, body: torch.Tensor, head: torch.Tensor | None, indices: np.ndarray) -> np.ndarray:
    samples = world.simulation.samples
    logits = predict(model_of(world, body, head), samples, indices)
    return confidence(logits, samples.labels[samples.positions(indices)].numpy(), samples.task)


@pytest.mark.parametrize("masked", [False, True])
def test_a_body_is_asked_with_the_heads_that_there_are(masked: bool) -> None:
    world, indices = trained("p2p-flop")
    weights = np.array([0.5, 0.0, 0.5, 0.0]) if masked else np.array([1.0, 0, 0, 0])
    view = View(Position("neighbour", 1, masked), 0, 1, weights)
    heads = dict(Holding(world).confidences(view, indices))
    assert set(heads) == {"own", "fitted", "known"}
    body = (world.published[0] + world.published[2]) / 2 if masked else world.published[0]
    np.testing.assert_allclose(heads["own"], asked(world, body, world.heads[1], indices), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(heads["known"], asked(world, body, world.heads[0], indices), rtol=1e-4, atol=1e-4)


def test_a_full_model_brings_its_head() -> None:
    world, indices = trained("dfedavg")
    heads = dict(Holding(world).confidences(View(Position("neighbour", 1), 0, 1, np.eye(4)[0]), indices))
    assert set(heads) == {"shared", "fitted"}
    np.testing.assert_allclose(heads["shared"], asked(world, world.published[0], None, indices), rtol=1e-5)


def test_of_a_model_given_away_the_head_is_known() -> None:
    world, indices = trained("local")
    heads = dict(Holding(world).confidences(View(Position("anyone"), 0, 1, np.eye(4)[0]), indices))
    assert set(heads) == {"known"}


def test_asking_leaves_the_federation_as_it_was() -> None:
    world, indices = trained("p2p-flop")
    before = world.published.clone(), world.heads.clone(), world.simulation.population.bodies.clone()
    dict(Holding(world).confidences(View(Position("neighbour", 1), 0, 1, np.full(4, 0.25)), indices))
    after = world.published, world.heads, world.simulation.population.bodies
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("globs", [("body.3.*", "head.*"), ("head.*",)])
def test_a_fitted_head_sees_what_comes_into_the_last_layer(globs: tuple[str, ...]) -> None:
    world, indices = trained("p2p-flop", **{"model.name": "mlp", "model.private": globs})
    heads = dict(Holding(world).confidences(View(Position("neighbour", 1), 0, 1, np.eye(4)[0]), indices))
    samples = world.simulation.samples
    model = model_of(world, world.published[0], world.heads[1]).eval()
    with torch.no_grad():
        features = model.body(samples.batch(samples.positions(indices))[0]).numpy()  # type: ignore[operator]
    labels = samples.labels[samples.positions(indices)].numpy()
    expected = fitted_confidence(features, labels)
    assert expected is not None
    np.testing.assert_allclose(heads["fitted"], expected, rtol=0.01, atol=0.01)


def test_confidence_is_the_logit_of_the_probability_of_the_label() -> None:
    generator = np.random.default_rng(0)
    logits, labels = 3 * generator.normal(size=(50, 5)), generator.integers(5, size=50)
    p = softmax(logits, axis=1)[np.arange(50), labels]
    np.testing.assert_allclose(confidence(logits, labels, "multiclass"), np.log(p / (1 - p)), rtol=1e-9)


def test_confidence_is_exact_where_the_probability_is_one_to_the_last_digit() -> None:
    logits = np.array([[100.0, 0, 0], [0, 300, 0]], np.float32)
    np.testing.assert_allclose(confidence(logits, np.array([0, 1]), "multiclass"), np.array([100, 300]) - np.log(2))
    assert np.isfinite(confidence(np.array([[200.0, -200]]), np.array([[1.0, 0]]), "multilabel")).all()


def test_confidence_in_several_labels_falls_with_the_loss() -> None:
    generator = np.random.default_rng(0)
    logits, labels = generator.normal(size=(40, 3)), (generator.random((40, 3)) > 0.5).astype(np.float32)
    loss = -np.log(np.where(labels > 0, expit(logits), expit(-logits))).mean(axis=1)
    found = confidence(logits, labels, "multilabel")
    assert (np.argsort(found) == np.argsort(-loss)).all()
    p = np.exp(-loss)
    np.testing.assert_allclose(found, np.log(p / (1 - p)), rtol=1e-9)


def test_a_fit_is_surer_of_records_whose_features_follow_their_labels() -> None:
    generator = np.random.default_rng(0)
    labels = generator.integers(3, size=120)
    learnt = np.arange(120) < 60
    features = generator.normal(size=(120, 10)) + 1.5 * np.eye(10)[labels] * learnt[:, None]
    found = fitted_confidence(features, labels)
    assert found is not None
    assert found[learnt].mean() > found[~learnt].mean() + 0.5


def test_a_fit_needs_two_classes_and_takes_features_that_never_change() -> None:
    features = np.random.default_rng(0).normal(size=(20, 3))
    features[:, 1] = 7
    assert fitted_confidence(features, np.zeros(20, np.int64)) is None
    assert fitted_confidence(features, np.zeros((20, 2))) is None
    two = fitted_confidence(features, np.arange(20) % 2)
    several = fitted_confidence(features, np.stack([np.arange(20) % 2, np.zeros(20)], axis=1))
    assert two is not None
    assert several is not None
    np.testing.assert_allclose(two, several, rtol=1e-6)
