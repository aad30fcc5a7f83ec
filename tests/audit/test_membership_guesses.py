"""LiRA finds what is there, nothing where nothing is, and more than a threshold on the loss."""

import numpy as np
import pytest
from scipy.stats import norm
from sklearn.metrics import roc_auc_score

from flop_p2p.audit.membership.guesses import likelihood_ratio, loss_threshold

CANDIDATES = 400


def draw(worlds: int, gain: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidences of unit variance in a world, much more between candidates, that are ``gain`` higher for members."""
    generator = np.random.default_rng(seed)
    first = np.stack([generator.permutation(CANDIDATES) < CANDIDATES // 2 for _ in range(worlds // 2)])
    member = np.stack([half for one in first for half in (one, ~one)])
    hardness = 5 * generator.normal(size=CANDIDATES)
    return hardness + generator.normal(size=member.shape) + gain * member, member


@pytest.mark.parametrize("gain", [1.0, 2.0])
def test_with_many_shadows_lira_is_as_good_as_can_be(gain: float) -> None:
    confidence, member = draw(102, gain)
    best = norm.cdf(gain / np.sqrt(2))  # of a likelihood-ratio test between two Gaussians
    assert roc_auc_score(member.ravel(), likelihood_ratio(confidence, member).ravel()) == pytest.approx(best, abs=0.01)


def test_with_sixteen_shadows_lira_is_nearly_so_and_a_threshold_is_not() -> None:
    confidence, member = draw(18, 2.0)
    lira = roc_auc_score(member.ravel(), likelihood_ratio(confidence, member).ravel())
    threshold = roc_auc_score(member.ravel(), loss_threshold(confidence, member).ravel())
    assert 0.88 < lira < norm.cdf(np.sqrt(2))
    assert threshold < 0.65


def test_the_threshold_is_on_the_loss_itself() -> None:
    confidence, member = draw(4, 1.0)
    assert (loss_threshold(confidence, member) == confidence).all()


def test_where_nothing_is_to_be_found_lira_errs_to_neither_side() -> None:
    """Leaving out the target alone, and not the opposite world, would give 0.494 here."""
    areas = []
    for seed in range(60):
        confidence, member = draw(18, 0.0, seed)
        areas.append(roc_auc_score(member.ravel(), likelihood_ratio(confidence, member).ravel()))
    assert abs(np.mean(areas) - 0.5) < 0.004


def test_variances_of_members_and_others_are_told_apart() -> None:
    confidence, member = draw(102, 0.0)
    confidence = np.where(member, confidence, confidence.mean(axis=0) + 3 * (confidence - confidence.mean(axis=0)))
    assert roc_auc_score(member.ravel(), likelihood_ratio(confidence, member).ravel()) > 0.7


def test_confidences_that_never_change_tell_nothing() -> None:
    confidence, member = draw(18, 0.0)
    constant = np.broadcast_to(confidence[0], confidence.shape)
    scores = likelihood_ratio(constant, member)
    assert np.isfinite(scores).all()
    assert roc_auc_score(member.ravel(), scores.ravel()) == pytest.approx(0.5)
