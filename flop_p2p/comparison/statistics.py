"""Statistics over seeds: Student t intervals, differences paired by seed, and verdicts.

Fractions such as accuracies stay fractions here (0.91); one point is 0.01.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import t

CONFIDENCE = 0.95
MARGIN = 0.01
LEAST_SEEDS = 5

Verdict = Literal["matches", "undecided", "falls short"]


@dataclass(frozen=True)
class Estimate:
    """A figure over seeds.

    mean: over the seeds that have the figure; None when none has.
    low, high: limits of the 95 % Student t interval of the mean; None below two seeds.
    per_seed: the figure of each seed, None where it is undefined.
    """

    mean: float | None
    low: float | None
    high: float | None
    per_seed: dict[int, float | None]

    @property
    def counted(self) -> int:
        """The number of seeds that have the figure."""
        return sum(value is not None for value in self.per_seed.values())

    @property
    def half_width(self) -> float | None:
        """Half the width of the interval, None below two seeds."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """A figure less that of centralized FLOP, paired by seed.

    verdict: None below five seeds.
    """

    estimate: Estimate
    verdict: Verdict | None


def estimate(per_seed: Mapping[int, float | None]) -> Estimate:
    """Mean and 95 % Student t interval over seeds; seeds without a value are left out."""
    values = [value for value in per_seed.values() if value is not None]
    if not values:
        return Estimate(None, None, None, dict(per_seed))
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Estimate(mean, None, None, dict(per_seed))
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1))
    half = float(t.ppf((1 + CONFIDENCE) / 2, len(values) - 1)) * deviation / math.sqrt(len(values))
    return Estimate(mean, mean - half, mean + half, dict(per_seed))


def difference(values: Mapping[int, float | None], reference: Mapping[int, float | None]) -> Difference:
    """``values`` less ``reference``, seed by seed; a seed that lacks either counts for neither."""
    pairs = {seed: (value, reference.get(seed)) for seed, value in values.items()}
    paired = estimate({seed: None if a is None or b is None else a - b for seed, (a, b) in pairs.items()})
    return Difference(paired, verdict(paired))


def verdict(paired: Estimate) -> Verdict | None:
    """What the interval of a paired difference says about a loss of one point (0.01).

    Returns:
        ``"matches"`` when the whole interval lies above -1 point, ``"falls short"`` when it lies below,
        ``"undecided"`` when it contains -1 point, and None with fewer than five seeds.
    """
    if paired.counted < LEAST_SEEDS or paired.low is None or paired.high is None:
        return None
    if paired.low > -MARGIN:
        return "matches"
    return "falls short" if paired.high < -MARGIN else "undecided"


def rounds_to(target: float, rounds: Sequence[int], accuracy: Sequence[float]) -> int | None:
    """The first of the evaluated ``rounds`` with an accuracy of at least ``target``; None when there is none."""
    return next((number for number, value in zip(rounds, accuracy, strict=True) if value >= target), None)
