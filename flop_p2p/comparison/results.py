"""From the run directories of a comparison to what its table, plots and `comparison.json` show."""

import json
import platform
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

from flop_p2p import __version__
from flop_p2p.comparison.curves import Curve, SeedCurve, merge, seed_curve
from flop_p2p.comparison.grid import GridOutcome
from flop_p2p.comparison.plan import Arm, Run
from flop_p2p.comparison.statistics import MARGIN, Difference, Estimate, difference, estimate, rounds_to
from flop_p2p.config import ExperimentSettings
from flop_p2p.errors import RunError
from flop_p2p.simulation import METHODS

REFERENCE = "flop"
PAIRED = ("accuracy", "balanced_accuracy")

Summary = dict[str, Any]


@dataclass(frozen=True)
class Record:
    """What a finished run left behind."""

    run: Run
    summary: Summary
    curve: SeedCurve


@dataclass(frozen=True)
class ArmResult:
    """One method and topology over all seeds.

    lr: None for a method that does not train.
    doubly_stochastic: None without a topology.
    metrics, pooled_test, chosen_round, late_sites: each figure's mean over sites, over seeds. The last two are
        empty where there is no validation data, or no late site.
    worst_site: the lowest accuracy of a site.
    site_accuracy: accuracy of each site, mean over the seeds in which it takes part.
    bytes_total, bytes_busiest: sent by all; sent plus received by the busiest participant, a server included.
    target_accuracy: of each seed, None where there is no target.
    rounds_to_target: over the seeds that reached their target.
    differences: figures less those of centralized FLOP; empty for FLOP itself and where it is not run.
    seconds: wall time of a run.
    epsilon: smallest and largest that a site spent, over sites and seeds; None without differential privacy.
    """

    arm: Arm
    lr: float | None
    weighting: str
    doubly_stochastic: bool | None
    metrics: dict[str, Estimate]
    pooled_test: dict[str, Estimate]
    chosen_round: dict[str, Estimate]
    late_sites: dict[str, Estimate]
    worst_site: Estimate
    site_accuracy: dict[str, float]
    bytes_total: Estimate
    bytes_busiest: Estimate
    target_accuracy: dict[int, float | None]
    rounds_to_target: Estimate
    differences: dict[str, Difference]
    seconds: Estimate
    epsilon: tuple[float, float] | None
    curve: Curve


@dataclass(frozen=True)
class Comparison:
    """The outcome of a comparison.

    sites: smallest and largest number of sites over the seeds.
    rounds: smallest and largest number of rounds over the runs; they differ with early stopping.
    """

    settings: ExperimentSettings
    arms: tuple[ArmResult, ...]
    sites: tuple[int, int]
    rounds: tuple[int, int]
    model: str
    task: str
    grid: dict[Arm, GridOutcome]

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds, ascending."""
        return tuple(self.arms[0].worst_site.per_seed)

    @property
    def lopsided(self) -> tuple[str, ...]:
        """The topologies whose sites do not converge to the plain mean."""
        arms = (result.arm for result in self.arms if result.doubly_stochastic is False)
        return tuple(dict.fromkeys(arm.topology for arm in arms if arm.topology is not None))

    @property
    def has_reference(self) -> bool:
        """Whether centralized FLOP is one of the methods."""
        return any(result.arm.method == REFERENCE for result in self.arms)


def read_record(run: Run) -> Record:
    """Read `summary.json` and `metrics.jsonl` of a finished run.

    Raises:
        RunError: a file is missing or damaged.
    """
    path = run.directory / "summary.json"
    try:
        summary = json.loads(path.read_text())
        path = run.directory / "metrics.jsonl"
        lines = [json.loads(line) for line in path.read_text().splitlines()]
        return Record(run, summary, seed_curve(lines))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{path}: cannot be read ({error}); delete {run.directory} to run it again") from error


def evaluate(settings: ExperimentSettings, records: Sequence[Record], grid: dict[Arm, GridOutcome]) -> Comparison:
    """Statistics over seeds of every method and topology, in the order of ``records``."""
    by_arm: dict[Arm, list[Record]] = {}
    for record in records:
        by_arm.setdefault(record.run.arm, []).append(record)
    reference = next((own for arm, own in by_arm.items() if arm.method == REFERENCE), [])
    target = settings.comparison.target_accuracy
    targets = {
        record.run.seed: target if target is not None else _accuracy_less_margin(record, reference)
        for record in records
    }
    sites = [record.summary["sites"] for record in records]
    rounds = [record.summary["rounds"] for record in records]
    return Comparison(
        settings=settings,
        arms=tuple(_arm_result(arm, own, reference, targets) for arm, own in by_arm.items()),
        sites=(min(sites), max(sites)),
        rounds=(min(rounds), max(rounds)),
        model=records[0].summary["model"],
        task=records[0].summary["task"],
        grid=grid,
    )


def _accuracy_less_margin(record: Record, reference: Sequence[Record]) -> float | None:
    """FLOP's final accuracy with the seed of ``record``, less one point."""
    accuracy = {flop.run.seed: flop.summary["metrics"]["accuracy"]["mean"] for flop in reference}
    final: float | None = accuracy.get(record.run.seed)
    return None if final is None else final - MARGIN


def _arm_result(
    arm: Arm, records: Sequence[Record], reference: Sequence[Record], targets: Mapping[int, float | None]
) -> ArmResult:
    first = records[0].summary
    return ArmResult(
        arm=arm,
        lr=first["lr"] if METHODS[arm.method].trains else None,
        weighting=first["weighting"],
        doubly_stochastic=first.get("doubly_stochastic"),
        metrics=_means(records, lambda summary: summary["metrics"]),
        pooled_test=_means(records, lambda summary: summary["pooled_test"]),
        chosen_round=_means(records, lambda summary: (summary["chosen_round"] or {}).get("metrics", {})),
        late_sites=_means(records, lambda summary: (summary["late_sites"] or {}).get("metrics", {})),
        worst_site=_over_seeds(records, lambda summary: summary["metrics"]["accuracy"]["min"]),
        site_accuracy=_site_accuracy(records),
        bytes_total=_over_seeds(records, lambda summary: summary["bytes"]["total"]),
        bytes_busiest=_over_seeds(records, lambda summary: summary["bytes"]["busiest_site"]),
        target_accuracy={record.run.seed: targets[record.run.seed] for record in records},
        rounds_to_target=estimate({r.run.seed: _rounds_to_target(r, targets[r.run.seed]) for r in records}),
        differences={} if arm.method == REFERENCE or not reference else _differences(records, reference),
        seconds=_over_seeds(records, lambda summary: summary["seconds"]["total"]),
        epsilon=_epsilon(records),
        curve=merge({record.run.seed: record.curve for record in records}),
    )


def _over_seeds(records: Sequence[Record], figure: Callable[[Summary], float | None]) -> Estimate:
    return estimate({record.run.seed: figure(record.summary) for record in records})


def _means(records: Sequence[Record], section: Callable[[Summary], dict[str, Any]]) -> dict[str, Estimate]:
    """The mean over sites of every figure in one section of the summaries, over seeds."""
    sections = {record.run.seed: section(record.summary) for record in records}
    names = dict.fromkeys(name for values in sections.values() for name in values)
    return {
        name: estimate({seed: values[name]["mean"] if name in values else None for seed, values in sections.items()})
        for name in names
    }


def _epsilon(records: Sequence[Record]) -> tuple[float, float] | None:
    privacy = [record.summary.get("privacy") for record in records]
    spent = [site["epsilon"] for each in privacy if each is not None for site in each["sites"].values()]
    return (min(spent), max(spent)) if spent else None


def _site_accuracy(records: Sequence[Record]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for record in records:
        for site, accuracy in record.summary["metrics"]["accuracy"]["per_site"].items():
            values.setdefault(site, []).append(accuracy)
    return {site: sum(own) / len(own) for site, own in sorted(values.items())}


def _rounds_to_target(record: Record, target: float | None) -> int | None:
    return None if target is None else rounds_to(target, record.curve.rounds, record.curve.accuracy)


def _differences(records: Sequence[Record], reference: Sequence[Record]) -> dict[str, Difference]:
    def values(own: Sequence[Record], name: str) -> dict[int, float | None]:
        return {record.run.seed: record.summary["metrics"][name]["mean"] for record in own}

    return {name: difference(values(records, name), values(reference, name)) for name in PAIRED}


def to_json(comparison: Comparison) -> dict[str, Any]:
    """The content of `comparison.json`; accuracies are fractions."""
    arms = []
    for result in comparison.arms:
        content = asdict(result)
        del content["arm"]
        arms.append({"method": result.arm.method, "topology": result.arm.topology, **content})
    packages = {"flop_p2p": __version__, "torch": version("torch"), "numpy": version("numpy")}
    return {
        "settings": comparison.settings.model_dump(mode="json"),
        "seeds": list(comparison.seeds),
        "sites": list(comparison.sites),
        "rounds": list(comparison.rounds),
        "model": comparison.model,
        "task": comparison.task,
        "results": arms,
        "lr_grid": [
            {"method": arm.method, "topology": arm.topology, **asdict(outcome)}
            for arm, outcome in comparison.grid.items()
        ],
        "versions": packages | {"python": platform.python_version()},
    }
