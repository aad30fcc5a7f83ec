"""How well scores tell members from others: AUC, true-positive rates at low false-positive rates, and intervals."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from sklearn.metrics import auc, roc_curve

Verdict = Literal["better than chance", "no better than chance", "undecided"]
RATES = (0.1, 0.01, 0.001)
LEAST_FALSE_POSITIVES = 10
RESAMPLES = 1000
CONFIDENCE = 0.95
MARGIN = 0.03  # of the AUC around 0.5, within which all of its interval must lie to be called chance
MOST_TIMES = 2.0  # the false-positive rate, below which all of the true-positive rate's interval must lie for it
CURVE_POINTS = 60
AT_A_TIME = 50  # resamples, which bounds memory


@dataclass(frozen=True)
class Scores:
    """The guesses of one test over all worlds and victims, ``[guesses]`` each.

    score: the higher, the likelier a member.
    member: the truth.
    patient: a number for whom the record is of; guesses on one patient are not independent of each other.
    """

    score: np.ndarray
    member: np.ndarray
    patient: np.ndarray


def figures(scores: Scores, draw: np.random.Generator) -> dict[str, Any]:
    """AUC, true-positive rates, the ROC curve and the verdict.

    Intervals are 95 % percentiles of a bootstrap over patients: a patient drawn brings all guesses on its records, in
    all worlds, and the threshold is chosen anew each time. A false-positive rate is reported where at least ten false
    positives are expected.
    """
    false, true, _ = roc_curve(scores.member, scores.score, drop_intermediate=False)
    others = int(np.count_nonzero(~scores.member))
    rates = [rate for rate in RATES if rate * others >= LEAST_FALSE_POSITIVES]
    resampled = np.concatenate(list(_resample(scores, rates, draw)))
    tails = [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2]
    low, high = np.quantile(resampled, tails, axis=0).tolist()
    area = {"value": float(auc(false, true)), "low": low[0], "high": high[0]}
    points = [
        {"fpr": rate, "value": rate_at(false, true, rate), "low": low[1 + place], "high": high[1 + place]}
        for place, rate in enumerate(rates)
    ]
    grid = np.geomspace(min(1.0, LEAST_FALSE_POSITIVES / others), 1, CURVE_POINTS)
    return {
        "members": len(scores.member) - others,
        "non_members": others,
        "patients": len(np.unique(scores.patient)),
        "auc": area,
        "tpr": points,
        "roc": {"fpr": grid.tolist(), "tpr": [rate_at(false, true, rate) for rate in grid]},
        "verdict": verdict(area, points),
    }


def rate_at(false: np.ndarray, true: np.ndarray, rate: float) -> float:
    """The true-positive rate at the lowest threshold with a false-positive rate of at most ``rate``."""
    return float(true[np.searchsorted(false, rate * (1 + 1e-12), side="right") - 1])


def verdict(area: Mapping[str, float], points: list[dict[str, float]]) -> Verdict:
    """What the intervals prove.

    Returns:
        ``"better than chance"`` when that of the AUC lies above 0.5 or that of a true-positive rate above its
        false-positive rate; ``"no better than chance"`` when that of the AUC lies within 0.03 of 0.5, and that of
        each true-positive rate below twice its false-positive rate; else ``"undecided"``.
    """
    if area["low"] > 0.5 or any(point["low"] > point["fpr"] for point in points):
        return "better than chance"
    close = area["low"] > 0.5 - MARGIN and area["high"] < 0.5 + MARGIN
    if close and all(point["high"] < MOST_TIMES * point["fpr"] for point in points):
        return "no better than chance"
    return "undecided"


def _resample(scores: Scores, rates: list[float], draw: np.random.Generator) -> Iterator[np.ndarray]:
    """AUC and true-positive rates of resamples, some at a time, ``[resamples, 1 + rates]``."""
    order = np.argsort(-scores.score, kind="stable")
    sorted_scores, member = scores.score[order], scores.member[order]
    patient = np.unique(scores.patient, return_inverse=True)[1].reshape(-1)[order]
    last = np.append(np.flatnonzero(np.diff(sorted_scores)), len(order) - 1)  # of each run of equal scores
    patients = int(patient.max()) + 1
    even = np.full(patients, 1 / patients)
    for start in range(0, RESAMPLES, AT_A_TIME):
        weights = draw.multinomial(patients, even, size=min(AT_A_TIME, RESAMPLES - start))[:, patient]
        true = np.cumsum(weights * member, axis=1)[:, last]
        false = np.cumsum(weights * ~member, axis=1)[:, last]
        yield np.stack([_figures_of(*both, rates) for both in zip(false, true, strict=True)])


def _figures_of(false: np.ndarray, true: np.ndarray, rates: list[float]) -> np.ndarray:
    """Of one resample, from the positives at each threshold, the highest first."""
    false, true = (np.append(0, counts) / max(counts[-1], 1) for counts in (false, true))
    area = float(np.diff(false) @ (true[1:] + true[:-1])) / 2
    return np.array([area, *(rate_at(false, true, rate) for rate in rates)])
