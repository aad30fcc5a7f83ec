"""How fast the round of `simulation.py` is on two ranks under torchrun, beside the same bare loop in one thread.

Two processes of one torch thread each, gloo on loopback, four sites each. Floor and ranks take turns: while rank 0 runs
the bare loop, rank 1 waits asleep. A turn of the ranks is a whole run: evaluation of every site after every round,
metrics, files and models of all sites, but not the start of the processes and the reading of the data. Figures are
medians over the turns. The bodies must be those of the bare loop in the engine's order to the bit.

    python benchmarks/torchrun.py [--data FOLDER] [--turns 5] [--small]
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import simulation
import torch
from machine import data_folder, show
from safetensors.torch import load_file

from flop_p2p.models import build_model
from flop_p2p.simulation import load_data, run_simulation
from flop_p2p.simulation.torchrun import joined

RANKS = 2


def take_turns(folder: Path | None, turns: int, small: bool, out: Path) -> None:
    """What each rank does; rank 0 writes the figures to ``out``."""
    torch.set_num_threads(1)
    experiment = simulation.settings(folder, small)
    data = load_data(experiment)
    rounds = experiment.training.rounds
    floor_seconds, rank_seconds = [], []

    def timed_floor() -> float:
        start = time.perf_counter()
        simulation.floor(experiment, data)
        return (time.perf_counter() - start) / rounds

    with joined("cpu") as ranks:
        for turn in range(turns):
            floor_seconds.append(ranks.of_first(timed_floor))
            start = time.perf_counter()
            run_simulation(experiment, out.parent / f"run-{turn}", data=data, ranks=ranks)
            rank_seconds.append((time.perf_counter() - start) / rounds)
        if ranks.rank > 0:
            return
    expected = simulation.floor(experiment, data, as_engine=True)
    models = [load_file(path) for path in sorted((out.parent / "run-0" / "models").iterdir())]
    order = [name for name in build_model("small-cnn", (1, 28, 28), 10, 0).state_dict() if not name.startswith("head.")]
    bodies = [torch.cat([model[name].reshape(-1) for name in order]) for model in models]
    figures = {
        "sites": len(data.sites),
        "rounds": rounds,
        "data": experiment.data.source,
        "ranks": RANKS,
        "floor_round_seconds": statistics.median(floor_seconds),
        "ranks_round_seconds": statistics.median(rank_seconds),
        "ranks_speedup": statistics.median(a / b for a, b in zip(floor_seconds, rank_seconds, strict=True)),
        "bodies_equal_to_the_bit": all(torch.equal(own, other) for own, other in zip(bodies, expected, strict=True)),
    }
    out.write_text(json.dumps(figures))


def measure(small: bool = False, folder: Path | None = None, turns: int = 5) -> dict[str, Any]:
    """All figures by name; seconds.

    Raises:
        subprocess.CalledProcessError: a rank failed.
    """
    folder = folder or data_folder("fashion-mnist")
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "figures.json"
        start = [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            str(RANKS),
            __file__,
        ]
        flags = ["--out", str(out), "--turns", str(2 if small else turns)]
        flags += [*(["--data", str(folder)] if folder else []), *["--small"] * small]
        subprocess.run([*start, *flags], env={**os.environ, "OMP_NUM_THREADS": "1"}, check=True)
        figures: dict[str, Any] = json.loads(out.read_text())
    return figures


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the idx files")
    parser.add_argument("--turns", type=int, default=5, help="how often floor and ranks take turns")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)  # given by `measure` to the ranks that it starts
    arguments = parser.parse_args()
    if arguments.out:
        take_turns(arguments.data, arguments.turns, arguments.small, arguments.out)
        return
    show(measure(arguments.small, arguments.data, arguments.turns))


if __name__ == "__main__":
    main()
