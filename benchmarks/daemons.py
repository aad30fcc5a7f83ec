"""Do real daemons on a ring reach the bodies of the simulator, and how long do they take? ResNet-18 by default.

    python benchmarks/daemons.py [MODEL] [ROUNDS]

Runs the same federation twice, as four daemons with encrypted sockets and in the simulator, and prints for each
hospital the relative difference of body and head, then the seconds of both.
"""

import sys
import tempfile
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.local import run_local
from flop_p2p.simulation import run_simulation

LARGEST_DIFFERENCE = 1e-5  # relative, after training


def settings(model: str, rounds: int) -> ExperimentSettings:
    """Four hospitals of digits on a ring."""
    return load_experiment(
        overrides={
            "data.sites": 4,
            "data.limit_images": 400,
            "model.name": model,
            "training.rounds": rounds,
            "evaluate_every": 0,
            "gossip.deadline": 300.0,
        }
    )


def relative_differences(daemons: Path, simulated: Path) -> dict[str, float]:
    """The largest relative difference of a tensor, by hospital."""
    differences = {}
    for path in sorted((simulated / "models").iterdir()):
        expected, found = load_file(path), load_file(daemons / "sites" / path.stem / "state" / "model.safetensors")
        differences[path.stem] = max(
            float((found[name] - tensor).norm() / tensor.norm().clamp_min(1e-30))
            for name, tensor in expected.items()
            if tensor.is_floating_point()
        )
    return differences


def main(model: str = "resnet18", rounds: str = "5") -> int:
    """Run both and compare; the exit code is 1 if they differ by more than 1e-5."""
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        daemons, simulated = Path(folder) / "daemons", Path(folder) / "simulated"
        start = time.perf_counter()
        summary = run_local(settings(model, int(rounds)), daemons)
        middle = time.perf_counter()
        run_simulation(settings(model, int(rounds)), simulated)
        end = time.perf_counter()
        differences = relative_differences(daemons, simulated)
    table = Table(title=f"{model}, {rounds} rounds: daemons against the simulator")
    table.add_column("hospital")
    table.add_column("largest relative difference", justify="right")
    for site, difference in differences.items():
        table.add_row(site, f"{difference:.1e}")
    console.print(table)
    console.print(
        f"daemons {middle - start:.1f} s with their start, simulator {end - middle:.1f} s; "
        f"{summary['bytes']['total'] / 1e6:,.0f} MB sent"
    )
    return int(max(differences.values()) > LARGEST_DIFFERENCE)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
