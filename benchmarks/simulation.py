"""How fast a simulated round is beside a bare PyTorch loop over the very same gradient steps in one thread.

8 sites x 500 Fashion-MNIST images, ring, small-cnn, SGD 0.05, batch 32, 10 rounds of 1 local epoch. The floor is
written out below: indexing, forward, backward, ``torch.optim.SGD``, ``W @ X``, and no metrics. The engine evaluates
every site after every round and writes its files. Floor, engine with one worker and engine with a worker a core take
turns; figures are medians over the turns. Images of the floor lie in memory as they come; the engine's lie channels
last, which is faster. To show that the two take the same steps, the floor is run once more with images laid out and
bodies summed up as the engine does: its bodies must agree with the engine's to the bit.

Then the whole process, from its start to the summary: ``flop-p2p simulate`` with its peak memory (the proportional set
size of all its processes), and the bare loop as a script of its own.

    python benchmarks/simulation.py [--data FOLDER] [--turns 5] [--small]

The folder holds the idx files of Fashion-MNIST; default $FLOP_P2P_DATA/fashion-mnist. Without them, and with --small,
the bundled digits are taken.
"""

import argparse
import copy
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from machine import data_folder, peak_memory, show
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.data import FederatedData
from flop_p2p.learning.batches import round_batches, steps_of_round
from flop_p2p.models import build_model
from flop_p2p.seeding import derive
from flop_p2p.simulation import load_data, run_simulation
from flop_p2p.topology import build_schedule

SITES, IMAGES = 8, 500


def settings(folder: Path | None, small: bool = False) -> ExperimentSettings:
    """The settings of the benchmark; of the bundled digits where there is no folder."""
    source = {"data.source": "digits", "data.limit_images": 400 if small else 1797}
    if folder is not None and not small:
        source = {"data.source": "idx", "data.path": folder, "data.limit_images": int(SITES * IMAGES / 0.8)}
    return load_experiment(
        overrides={
            **source,
            "data.sites": SITES,
            "data.split": (0.8, 0.0, 0.2),
            "model.name": "small-cnn",
            "training.rounds": 2 if small else 10,
            "training.lr": 0.05,
            "training.momentum": 0.0,
        }
    )


def floor(experiment: ExperimentSettings, data: FederatedData, *, as_engine: bool = False) -> list[Tensor]:
    """A bare loop over the same steps; returns the body of every site after the last round.

    Args:
        as_engine: lay images out and sum bodies up in the engine's order, so that every bit must be the same.
    """
    training = experiment.training
    template = build_model("small-cnn", data.dataset.inputs.shape[1:], 10, experiment.seed)
    W = torch.from_numpy(
        build_schedule(experiment.topology, [site.name for site in data.sites]).mixing(0).toarray()
    ).float()
    scale, shift = (torch.from_numpy(v).float().view(-1, 1, 1) for v in (1 / (255.0 * data.std), -data.mean / data.std))
    images = torch.from_numpy(data.dataset.inputs)
    images = images.reshape(-1).view(images.shape)  # the strides that stacked images have
    inputs = torch.addcmul(shift, images.float(), scale)
    if as_engine:
        inputs = inputs.permute(0, 2, 3, 1).reshape(-1).view(len(inputs), *inputs.shape[2:], -1)
    labels = torch.from_numpy(data.dataset.labels)
    models = [copy.deepcopy(template) for _ in data.sites]
    optimizers = [torch.optim.SGD(model.parameters(), lr=training.lr, fused=True) for model in models]
    bodies = [[p for name, p in model.named_parameters() if not name.startswith("head.")] for model in models]
    for round_index in range(training.rounds):
        for site, model, optimizer in zip(data.sites, models, optimizers, strict=True):
            order = derive(experiment.seed, "batches", site.name, round_index)
            for batch in round_batches(
                data.dataset.labels[site.train], training, order, steps_of_round(len(site.train), training)
            ):
                chosen = torch.from_numpy(site.train[batch])
                images = inputs[chosen].permute(0, 3, 1, 2) if as_engine else inputs[chosen]
                optimizer.zero_grad()
                F.cross_entropy(model(images), labels[chosen]).backward()
                optimizer.step()
        with torch.no_grad():
            X = torch.stack([torch.cat([p.reshape(-1) for p in body]) for body in bodies])
            mixed = torch.stack([_ordered_sum(row, X) for row in W]) if as_engine else W @ X
            for row, body in zip(mixed, bodies, strict=True):
                torch.nn.utils.vector_to_parameters(row, body)
    return [torch.cat([p.detach().reshape(-1) for p in body]) for body in bodies]


def _ordered_sum(weights: Tensor, bodies: Tensor) -> Tensor:
    """The weighted sum in the order of the sites; a matrix product sums in an order of its own."""
    total = torch.zeros_like(bodies[0])
    for weight, body in zip(weights, bodies, strict=True):
        if weight:
            total += weight * body
    return total


def engine(experiment: ExperimentSettings, data: FederatedData, workers: int) -> tuple[list[Tensor], float]:
    """The whole run, its metrics and files included; returns what `floor` returns, and the mean accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        summary = run_simulation(experiment, Path(folder) / "run", data=data, workers=workers)
        models = [load_file(path) for path in sorted((Path(folder) / "run" / "models").iterdir())]
    names = [name for name in models[0] if not name.startswith("head.")]
    order = [name for name in build_model("small-cnn", (1, 28, 28), 10, 0).state_dict() if name in names]
    bodies = [torch.cat([model[name].reshape(-1) for name in order]) for model in models]
    return bodies, summary["metrics"]["accuracy"]["mean"]


def whole_process(folder: Path | None, small: bool) -> dict[str, Any]:
    """Seconds until `summary.json` and peak memory of ``flop-p2p simulate``, and of the bare loop, each a process."""
    experiment = settings(folder, small)
    flags = ["--data", experiment.data.source, "--limit-images", str(experiment.data.limit_images)]
    flags += ["--data-path", str(folder)] if experiment.data.path else []
    flags += f"--sites {SITES} --split 0.8,0,0.2 --model small-cnn --rounds {experiment.training.rounds}".split()
    script = [sys.executable, __file__, "--bare", *(["--data", str(folder)] if folder else []), *["--small"] * small]
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, "-m", "flop_p2p", "simulate", *flags, "--lr", "0.05", "--momentum", "0", "--out"]
        ours = peak_memory([*command, f"{out}/run"], until=Path(out) / "run" / "summary.json")
    bare = peak_memory(script)
    return {
        "process_seconds": ours.seconds,
        "process_peak_bytes": ours.peak_bytes,
        "bare_process_seconds": bare.seconds,
        "bare_process_peak_bytes": bare.peak_bytes,
    }


def measure(small: bool = False, folder: Path | None = None, turns: int = 5) -> dict[str, Any]:
    """All figures by name; seconds and bytes."""
    torch.set_num_threads(1)
    folder = folder or data_folder("fashion-mnist")
    experiment = settings(folder, small)
    data = load_data(experiment)
    rounds = experiment.training.rounds
    taken: dict[str, list[float]] = {"floor": [], "one worker": [], "all cores": []}
    for _ in range(2 if small else turns):
        start = time.perf_counter()
        floor(experiment, data)
        taken["floor"].append((time.perf_counter() - start) / rounds)
        for name, workers in (("one worker", 1), ("all cores", 0)):
            start = time.perf_counter()
            bodies, accuracy = engine(experiment, data, workers)
            taken[name].append((time.perf_counter() - start) / rounds)
    same = floor(experiment, data, as_engine=True)
    result: dict[str, Any] = {
        "sites": len(data.sites),
        "rounds": rounds,
        "data": experiment.data.source,
        "accuracy": accuracy,
        "bodies_equal_to_the_bit": all(torch.equal(own, other) for own, other in zip(bodies, same, strict=True)),
    }
    for name, key in (("floor", "floor"), ("one worker", "one_worker"), ("all cores", "all_cores")):
        result[f"{key}_round_seconds"] = statistics.median(taken[name])
        result[f"{key}_speedup"] = statistics.median(np.array(taken["floor"]) / np.array(taken[name]))
    return result | whole_process(folder, small)


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the idx files")
    parser.add_argument("--turns", type=int, default=5, help="how often floor and engine take turns")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    parser.add_argument("--bare", action="store_true", help="only the bare loop, once")
    arguments = parser.parse_args()
    if arguments.bare:
        torch.set_num_threads(1)
        experiment = settings(arguments.data, arguments.small)
        floor(experiment, load_data(experiment))
        return
    show(measure(arguments.small, arguments.data, arguments.turns))


if __name__ == "__main__":
    main()
