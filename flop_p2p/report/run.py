"""The pictures of one run: its topology, its partition, and accuracy over rounds at every site."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData
from flop_p2p.report.partition import draw_partition
from flop_p2p.report.topology import draw_topology
from flop_p2p.simulation import METHODS
from flop_p2p.topology import Schedule, build_schedule


def run_schedule(settings: ExperimentSettings, data: FederatedData, summary: dict[str, Any]) -> Schedule | None:
    """The schedule along which the sites of a run exchanged, or None for a method without gossip."""
    if METHODS[settings.method].exchange != "gossip":
        return None
    names = list(summary["metrics"]["accuracy"]["per_site"])
    counts = {site.name: len(site.train) for site in data.sites}
    return build_schedule(settings.topology, names, [counts[name] for name in names], settings.seed)


def write_pictures(
    directory: Path, settings: ExperimentSettings, data: FederatedData, schedule: Schedule | None
) -> None:
    """Write `partition.png`, `accuracy.png` and, with a schedule, `topology.png` into a finished run."""
    draw_partition(data, directory / "partition.png", settings.data.partition)
    draw_accuracy(directory / "metrics.jsonl", directory / "accuracy.png", f"{settings.method}, seed {settings.seed}")
    if schedule is not None:
        draw_topology(schedule, directory / "topology.png")


def draw_accuracy(metrics: Path, path: Path, title: str) -> None:
    """Draw accuracy and balanced accuracy over the evaluated rounds: thin lines the sites, a thick one their mean."""
    lines = [json.loads(text) for text in metrics.read_text().splitlines()]
    tested = [line for line in lines if line["test"] is not None]
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, 2, sharey=True), ("accuracy", "balanced_accuracy"), strict=True):
        sites: dict[str, list[tuple[int, float]]] = {}
        for line in tested:
            if line["test"][name] is not None:
                sites.setdefault(line["site"], []).append((line["round"], line["test"][name]))
        for points in sites.values():
            axes.plot(*zip(*points, strict=True), color="#0072B2", alpha=0.3, linewidth=1, marker=".", markersize=3)
        rounds = sorted({line["round"] for line in tested})
        means = [
            np.mean([dict(points)[number] for points in sites.values() if number in dict(points)]) for number in rounds
        ]
        axes.plot(rounds, means, color="#D55E00", linewidth=2.5, marker="o", markersize=4, label="mean over sites")
        axes.set_xlabel("round")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.set_title(f"{name.replace('_', ' ')} on the sites' own test splits", fontsize=10)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.suptitle(title)
    figure.savefig(path, dpi=130)
