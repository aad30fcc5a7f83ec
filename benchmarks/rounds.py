"""What a round of a daemon takes beyond training: published, stored, logged, exchanged, mixed, written down.

Four daemons, each a process with real keys, files, sockets and a checkpoint a round, on a ring over loopback. The body
has 24,992 numbers (100 KB) or, with ``--model resnet18``, 11,176,512 (44.7 MB); training is a single gradient step
on one sample. A round lasts from the line of one round in `metrics.jsonl` to that of the next at the same site; the
seconds that the site trained, as the daemon measures them, are taken off. What remains includes waiting for
neighbours that train longer. Figures are medians over all rounds and sites but for the first rounds; ``processor`` is
the time of all threads of the daemon, training included. No evaluation but after the last round.

    python benchmarks/rounds.py [--rounds 300] [--model resnet18] [--small]
"""

import argparse
import csv
import itertools
import multiprocessing
import statistics
import tempfile
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
from machine import show

from flop_p2p.config import ExperimentSettings, load_experiment, load_site
from flop_p2p.local.prepare import local_sites, prepare
from flop_p2p.node.daemon import run_node
from flop_p2p.node.journal import Journal
from flop_p2p.simulation import load_data

SITES, FEATURES = 4, 357  # an mlp of 357 features has a body of 24,992 numbers
WARM_UP = 5  # rounds
SPAWN = multiprocessing.get_context("forkserver")
Stamp = tuple[float, float, float]  # monotonic seconds, seconds of training and of the processor until then


def settings(folder: Path, model: str, rounds: int) -> ExperimentSettings:
    """A federation that hardly trains."""
    source = {"data.source": "digits"}
    if model == "mlp":
        write_table(folder / "table.csv")
        source = {"data.source": "csv", "data.path": str(folder / "table.csv")}
    return load_experiment(
        overrides={
            **source,
            "data.sites": SITES,
            "data.limit_images": 100,
            "model.name": model,
            "training.rounds": rounds,
            "training.local_steps": 1,
            "training.batch_size": 2,
            "training.momentum": 0.0,
            "evaluate_every": 0,
        }
    )


def write_table(path: Path) -> None:
    """Random features in two classes."""
    random = np.random.default_rng(0)
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*(f"x{number}" for number in range(FEATURES)), "label"])
        for row in range(100):
            writer.writerow([*random.standard_normal(FEATURES).round(3), f"class-{row % 2}"])


def start(site: Path, pipe: Connection) -> None:
    """Run a daemon that notes when its rounds end."""
    stamps: list[Stamp] = []
    mixed = Journal.mixed

    def noted(self: Journal, *arguments: Any) -> None:
        mixed(self, *arguments)
        stamps.append((time.monotonic(), self.seconds["training"], time.process_time()))

    Journal.mixed = noted  # type: ignore[method-assign,assignment]
    run_node(load_site(site))
    pipe.send(stamps)


def run(model: str, rounds: int) -> list[list[Stamp]]:
    """The stamps of every site."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        experiment = settings(folder, model, rounds)
        data = load_data(experiment)
        sites = local_sites(experiment, data, folder / "federation")
        prepare(experiment, data, sites, folder / "federation")
        pipes = []
        for site in sites:
            near, far = SPAWN.Pipe()
            SPAWN.Process(target=start, args=(site.settings, far), daemon=True).start()
            pipes.append(near)
        return [pipe.recv() for pipe in pipes]


def measure(small: bool = False, rounds: int = 300, model: str = "mlp") -> dict[str, Any]:
    """Milliseconds of a round beyond training, and what belongs to it."""
    SPAWN.set_forkserver_preload(["flop_p2p.node.daemon"])
    rounds = 20 if small else rounds
    pairs = [pair for stamps in run(model, rounds) for pair in itertools.pairwise(stamps[WARM_UP:])]
    whole = [1000 * (after[0] - before[0]) for before, after in pairs]
    training = [1000 * (after[1] - before[1]) for before, after in pairs]
    beyond = [total - trained for total, trained in zip(whole, training, strict=True)]
    return {
        "model": model,
        "rounds": rounds,
        "beyond_training_milliseconds": statistics.median(beyond),
        "beyond_training_milliseconds_90th_percentile": float(np.quantile(beyond, 0.9)),
        "round_milliseconds": statistics.median(whole),
        "training_milliseconds": statistics.median(training),
        "processor_milliseconds": statistics.mean(1000 * (after[2] - before[2]) for before, after in pairs),
    }


def main() -> None:
    """Measure and print a small table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=300, help="rounds of the daemons")
    parser.add_argument("--model", choices=("mlp", "resnet18"), default="mlp", help="whose body is exchanged")
    parser.add_argument("--small", action="store_true", help="few rounds, to see that it works")
    arguments = parser.parse_args()
    show(measure(arguments.small, arguments.rounds, arguments.model))


if __name__ == "__main__":
    main()
