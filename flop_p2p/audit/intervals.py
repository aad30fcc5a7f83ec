"""Intervals over images, and what they prove."""

import math
from collections.abc import Sequence
from typing import Any, Literal

from scipy.stats import beta, t

CONFIDENCE = 0.95

Verdict = Literal["better than chance", "no better than chance", "undecided"]


def mean_interval(values: Sequence[float]) -> dict[str, Any]:
    """Mean and 95 % Student t interval of at least one value; limits are None for a single one."""
    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "count": count}
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return {"mean": mean, "low": mean - half, "high": mean + half, "count": count}


def rate_interval(hits: int, trials: int) -> dict[str, Any]:
    """A rate and its exact 95 % interval (Clopper and Pearson 1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = 0.0 if hits == 0 else float(beta.ppf(tail, hits, trials - hits + 1))
    high = 1.0 if hits == trials else float(beta.ppf(1 - tail, hits + 1, trials - hits))
    return {"mean": hits / trials, "low": low, "high": high, "count": trials}


def verdict(interval: dict[str, Any], chance: float) -> Verdict:
    """What an interval proves about an attack, where ``chance`` is reached without seeing anything.

    Returns:
        ``better than chance`` if the whole interval lies above, ``no better than chance`` only if it lies at or below,
        and ``undecided`` otherwise, or without an interval.
    """
    low, high = interval["low"], interval["high"]
    if low is None or high is None:
        return "undecided"
    if low > chance:
        return "better than chance"
    return "no better than chance" if high <= chance else "undecided"


def inversion_verdict(gain: dict[str, Any], identified: dict[str, Any] | None, chance: float | None) -> Verdict:
    """What two intervals prove about inversions: either of them is proof enough that they found something.

    Args:
        gain: PSNR of the reconstructions less that of the nearest image of the attacker's own, in decibels. It is
            strict: only somebody who has the patient's image knows which one is nearest.
        identified: the part that is nearer to the image behind the gradient than to all others; None if not asked.
        chance: the largest such part that images could reach that were made without seeing anything.

    Returns:
        ``better than chance`` if the whole interval of ``identified`` lies above ``chance`` or that of ``gain`` above
        0, ``no better than chance`` only if neither does and that of ``gain`` lies at or below 0, else ``undecided``.
    """
    if identified is not None and chance is not None and verdict(identified, chance) == "better than chance":
        return "better than chance"
    return verdict(gain, 0.0)
