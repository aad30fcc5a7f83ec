"""Tests that guess members from how confident a model is: the higher the score, the likelier a member.

They take confidences ``[worlds, candidates]`` as of `flop_p2p.audit.membership.holding.confidence`, and who was a
member in which world, likewise; world 2k + 1 has those as members that world 2k has not.
"""

from collections.abc import Callable
from typing import Literal

import numpy as np

TestName = Literal["loss threshold", "LiRA"]
LEAST_DEVIATION = 1e-6


def loss_threshold(confidence: np.ndarray, member: np.ndarray) -> np.ndarray:  # noqa: ARG001
    """Members have a small loss (Yeom et al. 2018): the score is the confidence itself."""
    return confidence


def likelihood_ratio(confidence: np.ndarray, member: np.ndarray) -> np.ndarray:
    """LiRA, online, with a fixed global variance (Carlini et al. 2022, Algorithm 1).

    Every world is the target in turn. Its shadows are all other worlds but the one with the opposite members. So each
    candidate is a member in exactly half of the shadows, whether it is one in the target or not: what the shadows say
    of a candidate cannot give away the answer. Confidences of a candidate are taken as Gaussian with one mean where
    it is a member and one where not; the two variances are common to all candidates.

    Returns:
        log-likelihood ratios ``[worlds, candidates]``.
    """
    first = member[0::2]
    inside = np.where(first, confidence[0::2], confidence[1::2])  # [pairs, candidates]: where it is a member
    outside = np.where(first, confidence[1::2], confidence[0::2])
    scores = np.empty_like(confidence)
    for pair in range(len(first)):
        models = [_gaussian(np.delete(shadows, pair, axis=0)) for shadows in (inside, outside)]
        for world in (2 * pair, 2 * pair + 1):
            scores[world] = _log_density(confidence[world], *models[0]) - _log_density(confidence[world], *models[1])
    return scores


TESTS: dict[TestName, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "loss threshold": loss_threshold,
    "LiRA": likelihood_ratio,
}


def _gaussian(shadows: np.ndarray) -> tuple[np.ndarray, float]:
    """Mean of each candidate ``[candidates]``, and the deviation that all have in common."""
    mean = shadows.mean(axis=0)
    freedom = shadows.size - len(mean)
    deviation = float(np.sqrt(np.square(shadows - mean).sum() / freedom))
    return mean, max(deviation, LEAST_DEVIATION)


def _log_density(values: np.ndarray, mean: np.ndarray, deviation: float) -> np.ndarray:
    density: np.ndarray = -0.5 * np.square((values - mean) / deviation) - np.log(deviation)
    return density
