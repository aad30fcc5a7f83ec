"""From the lines of `metrics.jsonl` to `summary.json`."""

from collections.abc import Mapping, Sequence
from typing import Any

from flop_p2p.learning import Metrics
from flop_p2p.simulation.engine import Simulation
from flop_p2p.simulation.run_directory import Line

PER_CLASS = "per_class_recall"


def summarize(
    simulation: Simulation, lines: Sequence[Line], pooled: Mapping[str, Metrics], late: Mapping[str, Metrics]
) -> dict[str, Any]:
    """The content of `summary.json`.

    Args:
        lines: those of all rounds.
        pooled: each site's own model on the pooled test split.
        late: sites that joined after training, on their own test split.
    """
    settings, progress = simulation.settings, simulation.progress
    metrics = over_sites(final_round(lines, "test"))
    per_site = metrics["accuracy"]["per_site"]
    validation = over_sites(final_round(lines, "validation"))
    return {
        "method": settings.method,
        "topology": settings.topology.name if simulation.method.exchange == "gossip" else None,
        "doubly_stochastic": simulation.exchange.doubly_stochastic,
        "weighting": settings.topology.weighting,
        "head_loss": settings.training.head_loss,
        "lr": settings.training.lr,
        "sites": len(simulation.sites),
        "rounds": progress.round,
        "seed": settings.seed,
        "data": settings.data.source,
        "task": simulation.samples.task,
        "class_names": list(simulation.class_names),
        "model": simulation.blueprint.name,
        "body_parameters": simulation.population.split.body.parameters,
        "metrics": metrics,
        "per_class_recall": {site: tested[PER_CLASS] for site, tested in final_round(lines, "test").items()},
        "worst_site": min(per_site, key=per_site.__getitem__),
        "pooled_test": over_sites(pooled),
        "chosen_round": chosen_round(lines),
        "validation": validation or None,
        "late_sites": {"metrics": over_sites(late)} if late else None,
        "privacy": simulation.spending.summary(progress),
        "bytes": {"total": simulation.bytes_total(), "busiest_site": simulation.bytes_busiest()},
        "seconds": progress.seconds,
        "consensus_distance": simulation.consensus_distance(),
    }


def over_sites(per_site: Mapping[str, Metrics]) -> dict[str, Any]:
    """Mean and minimum over sites of every figure; a site where it is undefined does not count.

    Returns:
        ``{figure: {"mean", "min", "per_site", "sites_counted"}}``.
    """
    result = {}
    names = next(iter(per_site.values())).keys() - {PER_CLASS} if per_site else set()
    for name in sorted(names):
        values = {site: metrics[name] for site, metrics in per_site.items()}
        counted = [value for value in values.values() if value is not None]
        result[name] = {
            "mean": sum(counted) / len(counted) if counted else None,
            "min": min(counted) if counted else None,
            "per_site": values,
            "sites_counted": len(counted),
        }
    return result


def final_round(lines: Sequence[Line], part: str) -> dict[str, Metrics]:
    """What each site that has this part reached in the last round."""
    last = lines[-1]["round"]
    return {line["site"]: line[part] for line in lines if line["round"] == last and line[part] is not None}


def chosen_round(lines: Sequence[Line]) -> dict[str, Any] | None:
    """The round that is best on each site's validation data (the last of equals), and its test figures.

    Sites without validation data are left out; None where no site has any.
    """
    best: dict[str, Line] = {}
    for line in lines:
        if line["test"] is None or line["validation"] is None:
            continue
        known = best.get(line["site"])
        if known is None or line["validation"]["accuracy"] >= known["validation"]["accuracy"]:
            best[line["site"]] = line
    if not best:
        return None
    return {
        "rounds": {site: line["round"] for site, line in best.items()},
        "metrics": over_sites({site: line["test"] for site, line in best.items()}),
    }


def validation_accuracies(lines: Sequence[Line]) -> list[float]:
    """Mean validation accuracy over sites of each evaluated round, in order."""
    rounds: dict[int, list[float]] = {}
    for line in lines:
        if line["validation"] is not None:
            rounds.setdefault(line["round"], []).append(line["validation"]["accuracy"])
    return [sum(values) / len(values) for _, values in sorted(rounds.items())]


def has_stalled(lines: Sequence[Line], patience: int) -> bool:
    """Whether the last ``patience`` evaluations brought no better validation accuracy; 0 is never."""
    accuracies = validation_accuracies(lines) if patience else []
    if not accuracies:
        return False
    return len(accuracies) - 1 - accuracies.index(max(accuracies)) >= patience
