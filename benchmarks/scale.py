"""How time and memory grow with the number of sites: 8 to 1,024 with small-cnn, 10,000 with an MLP.

Every site has 64 images (drawn from Fashion-MNIST where its files are at hand, else noise of the same shape) and takes
one gradient step of 32 a round, so that what a round costs beside training shows. Each size runs in a process of its
own: a few rounds on all cores, without evaluation. Figures are seconds a site-step (median over the rounds) and the
peak memory of all its processes, beside the stated sum: what the processes take before there are any sites, and bodies,
heads, optimizer state and data once.

    python benchmarks/scale.py [--data FOLDER] [--rounds 7] [--small]
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from machine import data_folder, memory, peak_memory, show

from flop_p2p.config import load_experiment
from flop_p2p.data import FederatedData, SiteSplit
from flop_p2p.data.dataset import Dataset
from flop_p2p.data.sources.idx import read_idx_folder
from flop_p2p.simulation import Simulation

IMAGES = 64
CLASSES = tuple("0123456789")
CASES = (
    *((sites, "small-cnn", "ring") for sites in (8, 64, 256, 1024)),
    (1024, "small-cnn", "one-peer-exponential"),
    (10_000, "mlp", "ring"),
)
SMALL = ((8, "small-cnn", "ring"), (64, "mlp", "one-peer-exponential"))


def samples(model: str, folder: Path | None) -> Dataset:
    """Images for the CNN; 40 features, with which the MLP has about 5,000 parameters, for the MLP."""
    if model == "small-cnn" and folder is not None:
        return read_idx_folder(folder)
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10, 8000)
    if model == "small-cnn":
        return Dataset("noise", draw.integers(0, 256, (8000, 1, 28, 28), np.uint8), labels, CLASSES, "multiclass")
    return Dataset("noise", draw.normal(size=(8000, 40)).astype(np.float32), labels, CLASSES, "multiclass")


def data_of(sites: int, model: str, folder: Path | None) -> FederatedData:
    """``sites`` sites with 64 samples each, any of which may be at several sites."""
    dataset = samples(model, folder)
    draw = np.random.default_rng(1)
    none = np.zeros(0, np.int64)
    splits = [
        SiteSplit(f"hospital-{number:05d}", np.sort(draw.choice(len(dataset.labels), IMAGES)), none, none)
        for number in range(sites)
    ]
    axes = dataset.inputs.shape[1]
    return FederatedData(dataset, tuple(splits), np.full(axes, 0.5, np.float32), np.ones(axes, np.float32))


def one(sites: int, model: str, topology: str, rounds: int, folder: Path | None) -> dict[str, Any]:
    """Run one size in this process."""
    settings = load_experiment(
        overrides={
            "data.sites": sites,
            "model.name": model,
            "topology.name": topology,
            "training.local_steps": 1,
            "training.batch_size": 32,
            "training.rounds": rounds,
        }
    )
    data = data_of(sites, model, folder)
    before = memory()
    start = time.perf_counter()
    simulation = Simulation(settings, data, data.sites, workers=0)
    built = time.perf_counter() - start
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        simulation.run_round(lambda: False)
        simulation.progress.trained = {}
        seconds.append(time.perf_counter() - start)
    mixing = simulation.progress.seconds["mixing"] / rounds
    simulation.close()
    population = sum(tensor.nbytes for tensor in simulation.population.tensors().values())
    return {
        "build_seconds": built,
        "round_seconds": statistics.median(seconds[1:]),  # in the first one the workers are forked
        "mixing_seconds": mixing,
        "before_bytes": before,
        "population_bytes": population,
    }


def measure(small: bool = False, folder: Path | None = None, rounds: int = 7) -> dict[str, Any]:
    """All figures by name; seconds and bytes."""
    folder = folder or data_folder("fashion-mnist")
    result: dict[str, Any] = {}
    for sites, model, topology in SMALL if small else CASES:
        flags = ["--data", str(folder)] if folder is not None else []
        with tempfile.TemporaryDirectory() as out:
            file = Path(out) / "result.json"
            case = ["--one", str(sites), model, topology, str(file), "--rounds", str(3 if small else rounds)]
            usage = peak_memory([sys.executable, __file__, *case, *flags])
            found = json.loads(file.read_text())
        stated = found["before_bytes"] + found["population_bytes"]
        name = f"{model}_{sites}_{topology}"
        result[f"{name}_site_step_seconds"] = found["round_seconds"] / sites
        result[f"{name}_rounds_a_second"] = 1 / found["round_seconds"]
        result[f"{name}_mixing_share"] = found["mixing_seconds"] / found["round_seconds"]
        result[f"{name}_build_seconds"] = found["build_seconds"]
        result[f"{name}_stated_bytes"] = stated
        result[f"{name}_peak_bytes"] = usage.peak_bytes
        result[f"{name}_peak_to_stated"] = usage.peak_bytes / stated
    if not small:
        steps = [result[f"small-cnn_{sites}_ring_site_step_seconds"] for sites in (64, 256, 1024)]
        result["site_step_growth_64_to_1024"] = max(steps) / steps[0]
    return result


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the idx files of Fashion-MNIST")
    parser.add_argument("--rounds", type=int, default=7, help="rounds of each size")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--one", nargs=4, metavar=("SITES", "MODEL", "TOPOLOGY", "FILE"), help="only this size")
    arguments = parser.parse_args()
    if arguments.one:
        sites, model, topology, file = arguments.one
        found = one(int(sites), model, topology, arguments.rounds, arguments.data)
        Path(file).write_text(json.dumps(found))
        return
    show(measure(arguments.small, arguments.data, arguments.rounds))


if __name__ == "__main__":
    main()
