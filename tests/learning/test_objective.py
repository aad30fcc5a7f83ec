"""The loss against values computed by hand: logit adjustment, class weights, several labels."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax
from torch import Tensor

from flop_p2p.config import TrainingSettings
from flop_p2p.learning import Samples, log_prior
from flop_p2p.learning.objective import Objective, build_objective

MakeSamples = Callable[..., Samples]

LABELS = [0, 0, 0, 0, 0, 0, 1, 1]  # of three classes; class 2 is absent
LOGITS = np.array([[2.0, -1.0, 0.5], [0.1, 0.2, 0.3], [-1.0, 3.0, 0.0]])
BATCH = [0, 1, 1]


def objective(samples: Samples, indices: list[int] | None = None, **settings: str) -> Objective:
    chosen = torch.arange(len(samples.labels)) if indices is None else torch.tensor(indices)
    return build_objective(samples, chosen, TrainingSettings(**settings))  # type: ignore[arg-type]


def loss(chosen: Objective, labels: Tensor) -> float:
    return float(chosen.loss(torch.tensor(LOGITS, dtype=torch.float32), labels))


def cross_entropy(logits: np.ndarray, labels: list[int], weights: np.ndarray | None = None) -> float:
    weight = np.ones(len(labels)) if weights is None else weights[labels]
    losses = -log_softmax(logits, axis=1)[np.arange(len(labels)), labels]
    return float((weight * losses).sum() / weight.sum())


def test_plain_loss_is_cross_entropy(make_samples: MakeSamples) -> None:
    chosen = objective(make_samples(LABELS))
    assert (chosen.prior, chosen.class_weights) == (None, None)
    assert loss(chosen, torch.tensor(BATCH)) == pytest.approx(cross_entropy(LOGITS, BATCH), rel=1e-6)


def test_logit_adjusted_loss_adds_the_log_prior(make_samples: MakeSamples) -> None:
    prior = np.array([6 + 1, 2 + 1, 0 + 1]) / 11  # counts, each smoothed by one
    chosen = objective(make_samples(LABELS), head_loss="logit-adjusted")
    expected = cross_entropy(LOGITS + np.log(prior), BATCH)
    assert loss(chosen, torch.tensor(BATCH)) == pytest.approx(expected, rel=1e-6)
    assert expected != pytest.approx(cross_entropy(LOGITS, BATCH), rel=0.02)


def test_class_weights(make_samples: MakeSamples) -> None:
    weights = np.array([8 / (2 * 6), 8 / (2 * 2), 0])
    chosen = objective(make_samples(LABELS), class_weights="balanced")
    assert chosen.class_weights.tolist() == pytest.approx(weights.tolist())
    assert loss(chosen, torch.tensor(BATCH)) == pytest.approx(cross_entropy(LOGITS, BATCH, weights), rel=1e-6)


def test_prior_and_class_weights_together(make_samples: MakeSamples) -> None:
    chosen = objective(make_samples(LABELS), class_weights="balanced", head_loss="logit-adjusted")
    expected = cross_entropy(LOGITS + np.log([7 / 11, 3 / 11, 1 / 11]), BATCH, np.array([2 / 3, 2, 0]))
    assert loss(chosen, torch.tensor(BATCH)) == pytest.approx(expected, rel=1e-6)


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60))
def test_samples_weigh_one_on_average_and_classes_the_same(make_samples: MakeSamples, labels: list[int]) -> None:
    weights = objective(make_samples(labels, classes=5), class_weights="balanced").class_weights
    assert float(weights[labels].mean()) == pytest.approx(1, rel=1e-5)
    totals = (weights * torch.bincount(torch.tensor(labels), minlength=5)).tolist()
    assert [total for total in totals if total] == pytest.approx([len(labels) / len(set(labels))] * len(set(labels)))


@given(st.lists(st.integers(0, 4), max_size=60))
def test_prior_is_a_distribution_that_smoothing_keeps_finite(make_samples: MakeSamples, labels: list[int]) -> None:
    samples = make_samples([0, 1, 2, 3, 4], classes=5)
    prior = log_prior(torch.tensor(labels, dtype=torch.int64), samples)
    expected = np.log((np.bincount(np.array(labels, int), minlength=5) + 1) / (len(labels) + 5))
    np.testing.assert_allclose(prior.numpy(), expected, rtol=1e-5)
    assert float(prior.exp().sum()) == pytest.approx(1, rel=1e-5)


def test_only_the_sites_own_samples_count(make_samples: MakeSamples) -> None:
    chosen = objective(make_samples(LABELS), [0, 6, 7], head_loss="logit-adjusted", class_weights="balanced")
    assert chosen.prior.exp().tolist() == pytest.approx([2 / 6, 3 / 6, 1 / 6])
    assert chosen.class_weights.tolist() == pytest.approx([3 / 2, 3 / 4, 0])


def test_several_labels_take_the_binary_loss_of_each(multilabel_samples: Samples) -> None:
    labels = np.array([[1.0, 0, 1], [0, 1, 0], [1, 1, 0]])
    expected = np.mean(np.log1p(np.exp(-LOGITS)) * labels + np.log1p(np.exp(LOGITS)) * (1 - labels))
    assert loss(objective(multilabel_samples), torch.tensor(labels).float()) == pytest.approx(expected, rel=1e-6)


def test_several_labels_have_log_odds_and_weights_of_positives(multilabel_samples: Samples) -> None:
    labels = torch.tensor([[1.0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 0, 0]])
    np.testing.assert_allclose(log_prior(labels, multilabel_samples).exp(), [4 / 2, 2 / 4, 1 / 5], rtol=1e-6)
    chosen = objective(multilabel_samples, class_weights="balanced")
    positive = multilabel_samples.labels.sum(dim=0)
    np.testing.assert_allclose(chosen.class_weights, (90 - positive) / positive, rtol=1e-6)


def test_several_labels_with_prior_and_weights(multilabel_samples: Samples) -> None:
    labels = np.array([[1.0, 0, 1], [0, 1, 0], [1, 1, 0]])
    positive = multilabel_samples.labels.sum(dim=0).numpy()
    logits = LOGITS + np.log((positive + 1) / (91 - positive))
    weighted = np.log1p(np.exp(-logits)) * labels * (90 - positive) / positive
    expected = np.mean(weighted + np.log1p(np.exp(logits)) * (1 - labels))
    chosen = objective(multilabel_samples, class_weights="balanced", head_loss="logit-adjusted")
    assert loss(chosen, torch.tensor(labels).float()) == pytest.approx(expected, rel=1e-5)
