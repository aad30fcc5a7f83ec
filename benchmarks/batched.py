"""Many sites trained at once against one after the other, in rounds of the simulator without any exchange.

On the CPU, one thread, one process: 256 sites of an MLP of 5,034 parameters, with equal and with uneven numbers of
samples, and 64 sites of small-cnn. Where there is a GPU: 256 sites of small-cnn on it, against the same loop on the
CPU. Equal sites take 4 gradient steps of 32 samples a round, uneven ones an epoch. The two sides take turns; figures
are medians over the turns, ratios over the pairs. The floor is the loop of the simulator itself, whose steps are those
of a bare PyTorch loop (`simulation.py`).

    python benchmarks/batched.py [--turns 7] [--small]
"""

import argparse
import statistics
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from machine import show

from flop_p2p.config import load_experiment
from flop_p2p.data import FederatedData, SiteSplit
from flop_p2p.data.dataset import Dataset
from flop_p2p.simulation import Simulation

BATCH, STEPS = 32, 4
CLASSES = tuple("0123456789")


@dataclass(frozen=True)
class Case:
    """Sites of one model; ``at_once`` of them train together on ``device``."""

    name: str
    model: str
    sites: int
    at_once: int
    device: str = "cpu"
    uneven: bool = False


CASES = (
    Case("mlp", "mlp", 256, 32),
    Case("mlp_uneven", "mlp", 256, 32, uneven=True),
    Case("small_cnn", "small-cnn", 64, 16),
)
GPU_CASES = (Case("gpu_small_cnn", "small-cnn", 256, 256, "cuda"), Case("gpu_mlp", "mlp", 256, 256, "cuda"))


def data_of(case: Case) -> FederatedData:
    """Noise; 128 samples a site, or from 20 to 128."""
    draw = np.random.default_rng(0)
    sizes = draw.integers(20, BATCH * STEPS + 1, case.sites) if case.uneven else np.full(case.sites, BATCH * STEPS)
    count = 8000
    images = case.model == "small-cnn"
    inputs = draw.integers(0, 256, (count, 1, 28, 28), np.uint8) if images else draw.normal(size=(count, 40))
    dataset = Dataset(
        "noise", inputs if images else inputs.astype(np.float32), draw.integers(0, 10, count), CLASSES, "multiclass"
    )
    none = np.zeros(0, np.int64)
    splits = tuple(
        SiteSplit(f"hospital-{number:03d}", draw.choice(count, size), none, none) for number, size in enumerate(sizes)
    )
    axes = inputs.shape[1]
    return FederatedData(dataset, splits, np.full(axes, 0.5, np.float32), np.ones(axes, np.float32))


def simulation(case: Case, data: FederatedData, at_once: int, device: str) -> Simulation:
    """Sites that only train."""
    settings = load_experiment(
        overrides={
            "method": "local",
            "device": device,
            "sites_at_once": at_once,
            "model.name": case.model,
            "training.batch_size": BATCH,
            "training.rounds": 1000,
        }
    )
    return Simulation(settings, data, data.sites, workers=1)


def seconds_of_round(run: Simulation) -> float:
    """Train all sites once."""
    start = time.perf_counter()
    run.run_round(lambda: False)
    run.progress.trained = {}
    if run.population.bodies.is_cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - start


def compare(case: Case, turns: int) -> dict[str, float]:
    """Seconds a site-step of both sides, their ratio, and how far the bodies are apart after the first round."""
    data = data_of(case)
    loop, batched = simulation(case, data, 1, "cpu"), simulation(case, data, case.at_once, case.device)
    steps = sum(learner.steps for learner in loop.work.learners)
    seconds_of_round(loop)
    seconds_of_round(batched)
    alone, together = loop.population.bodies, batched.population.bodies.cpu()
    difference = float(((together - alone).norm(dim=1) / alone.norm(dim=1)).max())
    pairs = [(seconds_of_round(loop), seconds_of_round(batched)) for _ in range(turns)]
    return {
        f"{case.name}_sites": case.sites,
        f"{case.name}_at_once": case.at_once,
        f"{case.name}_loop_site_step_seconds": statistics.median(first for first, _ in pairs) / steps,
        f"{case.name}_batched_site_step_seconds": statistics.median(second for _, second in pairs) / steps,
        f"{case.name}_times_faster": statistics.median(first / second for first, second in pairs),
        f"{case.name}_difference": difference,
    }


def measure(small: bool = False, turns: int = 7) -> dict[str, Any]:
    """All figures by name; those of a GPU only where PyTorch sees one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    cases = [*CASES, *(GPU_CASES if torch.cuda.is_available() else ())]
    if small:
        cases = [Case(case.name, case.model, 8, 4, case.device, case.uneven) for case in cases]
    result: dict[str, Any] = {}
    for case in cases:
        result |= compare(case, 1 if small else turns)
    torch.set_num_threads(threads)
    return result


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=7, help="how often the two sides take turns")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    arguments = parser.parse_args()
    show(measure(arguments.small, arguments.turns))


if __name__ == "__main__":
    main()
