"""Accuracy over rounds and traffic: of one run, and over seeds."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flop_p2p.comparison.statistics import estimate


@dataclass(frozen=True)
class SeedCurve:
    """The evaluated rounds of one run, ascending.

    accuracy: mean over sites on their own test split.
    bytes_total: sent so far by all participants.
    """

    rounds: tuple[int, ...]
    accuracy: tuple[float, ...]
    bytes_total: tuple[int, ...]


@dataclass(frozen=True)
class Curve:
    """The evaluated rounds over seeds, ascending.

    accuracy, low, high: mean and 95 % interval over seeds; limits are None with one seed.
    bytes_total: sent so far by all participants, mean over seeds.
    """

    rounds: tuple[int, ...]
    accuracy: tuple[float, ...]
    low: tuple[float | None, ...]
    high: tuple[float | None, ...]
    bytes_total: tuple[float, ...]


def seed_curve(lines: Sequence[Mapping[str, Any]]) -> SeedCurve:
    """The curve in the lines of a `metrics.jsonl`; rounds without evaluation are left out."""
    accuracies: dict[int, list[float]] = {}
    traffic: dict[int, int] = {}
    for line in lines:
        if line["test"] is not None:
            accuracies.setdefault(line["round"], []).append(line["test"]["accuracy"])
            traffic[line["round"]] = line["bytes_total"]
    rounds = tuple(sorted(accuracies))
    means = tuple(sum(accuracies[number]) / len(accuracies[number]) for number in rounds)
    return SeedCurve(rounds, means, tuple(traffic[number] for number in rounds))


def merge(curves: Mapping[int, SeedCurve]) -> Curve:
    """Mean and interval over seeds, a round.

    A seed that stopped early keeps its last accuracy and traffic; rounds before any seed's first evaluation
    are left out.
    """
    first = max(curve.rounds[0] for curve in curves.values())
    rounds = sorted({number for curve in curves.values() for number in curve.rounds if number >= first})
    estimates, traffic = [], []
    for number in rounds:
        places = {seed: _place(curve, number) for seed, curve in curves.items()}
        estimates.append(estimate({seed: curves[seed].accuracy[place] for seed, place in places.items()}))
        traffic.append(sum(curves[seed].bytes_total[place] for seed, place in places.items()) / len(curves))
    return Curve(
        rounds=tuple(rounds),
        accuracy=tuple(own.mean for own in estimates if own.mean is not None),
        low=tuple(own.low for own in estimates),
        high=tuple(own.high for own in estimates),
        bytes_total=tuple(traffic),
    )


def _place(curve: SeedCurve, number: int) -> int:
    """The position of the last evaluated round up to ``number``."""
    return max(place for place, known in enumerate(curve.rounds) if known <= number)
