"""Where the time of a simulated round goes, in percent: the operations of torch by kind, and what lies between them.

One process, the settings of `simulation.py`, metrics after every round. Times are those that torch's profiler gives to
each operation by itself; what it does not see (Python, numpy, files) is the rest.

    python benchmarks/round_profile.py [--data FOLDER] [--rounds 3]
"""

import argparse
import time
from collections import Counter
from pathlib import Path

import torch
from machine import data_folder
from simulation import settings
from torch.profiler import ProfilerActivity, profile

from flop_p2p.simulation import Simulation, load_data

KINDS = (
    ("convolution", ("convolution", "conv2d", "mkldnn", "onednn")),
    ("pooling", ("pool",)),
    ("ReLU", ("relu", "threshold", "clamp_min")),
    ("linear layers", ("addmm", "linear", "aten::mm", "aten::t", "matmul")),
    ("loss", ("nll", "softmax", "cross_entropy")),
    ("optimizer", ("_fused_", "sgd", "foreach")),
    ("batches", ("index", "addcmul", "aten::_to_copy", "aten::copy_", "aten::to")),
)


def kind_of(operation: str) -> str:
    """The kind of an operation by its name."""
    lowered = operation.lower()
    return next((kind for kind, parts in KINDS if any(part in lowered for part in parts)), "other operations of torch")


def shares(folder: Path | None, rounds: int) -> dict[str, float]:
    """Percent of the wall time by kind, and milliseconds a round."""
    torch.set_num_threads(1)
    experiment = settings(folder)
    data = load_data(experiment)
    simulation = Simulation(experiment, data, data.sites)
    simulation.run_round(lambda: False)
    simulation.round_lines()
    with profile(activities=[ProfilerActivity.CPU]) as profiler:
        start = time.perf_counter()
        for _ in range(rounds):
            simulation.run_round(lambda: False)
            simulation.round_lines()
        wall = time.perf_counter() - start
    spent: Counter[str] = Counter()
    for event in profiler.key_averages():
        spent[kind_of(event.key)] += event.self_cpu_time_total / 1e6
    spent["Python and the rest"] = max(0.0, wall - sum(spent.values()))
    return {kind: 100 * seconds / wall for kind, seconds in spent.most_common()} | {
        "milliseconds a round, profiler included": 1000 * wall / rounds
    }


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the idx files of Fashion-MNIST")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    for kind, share in shares(arguments.data or data_folder("fashion-mnist"), arguments.rounds).items():
        print(f"{kind:42} {share:8.1f}")


if __name__ == "__main__":
    main()
