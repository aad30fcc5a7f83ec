"""Do real daemons on a ring reach the bodies of the simulator, and how long do they take? ResNet-18.

    python benchmarks/daemons.py [--small]

Runs the same federation twice, as four daemons with encrypted sockets and in the simulator, and tells the largest
relative difference of a tensor at any hospital, and the seconds of both with their start. The simulator uses all cores
as the daemons do.
"""

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from machine import show
from safetensors.torch import load_file

from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.local import run_local
from flop_p2p.simulation import run_simulation


def settings(small: bool) -> ExperimentSettings:
    """Four hospitals of digits on a ring."""
    return load_experiment(
        overrides={
            "data.sites": 4,
            "data.limit_images": 100 if small else 400,
            "model.name": "small-cnn" if small else "resnet18",
            "training.rounds": 2 if small else 5,
            "evaluate_every": 0,
            "gossip.deadline": 300.0,
        }
    )


def largest_difference(daemons: Path, simulated: Path) -> float:
    """The largest relative difference of a tensor of any hospital."""
    largest = 0.0
    for path in sorted((simulated / "models").iterdir()):
        expected, found = load_file(path), load_file(daemons / "sites" / path.stem / "state" / "model.safetensors")
        for name, tensor in expected.items():
            if tensor.is_floating_point():
                largest = max(largest, float((found[name] - tensor).norm() / tensor.norm().clamp_min(1e-30)))
    return largest


def measure(small: bool = False) -> dict[str, Any]:
    """All figures by name; seconds and bytes."""
    with tempfile.TemporaryDirectory() as folder:
        daemons, simulated = Path(folder) / "daemons", Path(folder) / "simulated"
        start = time.perf_counter()
        summary = run_local(settings(small), daemons)
        middle = time.perf_counter()
        run_simulation(settings(small), simulated)
        end = time.perf_counter()
        difference = largest_difference(daemons, simulated)
    return {
        "model": summary["model"],
        "rounds": summary["rounds"],
        "largest_relative_difference": difference,
        "daemons_seconds": middle - start,
        "simulator_seconds": end - middle,
        "sent_bytes": summary["bytes"]["total"],
    }


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    show(measure(parser.parse_args().small))


if __name__ == "__main__":
    main()
