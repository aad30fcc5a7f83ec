"""How much slower the engine is than a bare PyTorch loop over the very same gradient steps.

8 sites x 500 Fashion-MNIST images, ring, small-cnn, SGD 0.05, batch 32, 10 rounds of 1 local epoch, one torch thread,
both sides evaluating once at the end on the same test splits. The floor is written out below: indexing, forward,
backward, ``torch.optim.SGD``, ``W @ X``. Engine and floor take turns, each in the same process; the figure is the
median over the pairs of engine time divided by floor time. The final bodies of the two must agree to the
bit, which shows that they take the same steps.

    python benchmarks/simulation.py [--data FOLDER] [--pairs 5]

The folder holds the idx files of Fashion-MNIST; default $FLOP_P2P_DATA/fashion-mnist.
"""

import argparse
import copy
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
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


def settings(folder: Path) -> ExperimentSettings:
    """The settings of the benchmark."""
    return load_experiment(
        overrides={
            "data.source": "idx",
            "data.path": folder,
            "data.limit_images": int(SITES * IMAGES / 0.8),
            "data.sites": SITES,
            "data.split": (0.8, 0.0, 0.2),
            "model.name": "small-cnn",
            "training.rounds": 10,
            "training.lr": 0.05,
            "training.momentum": 0.0,
            "evaluate_every": 0,
        }
    )


def floor(experiment: ExperimentSettings, data: FederatedData) -> tuple[float, float, list[Tensor]]:
    """A bare loop over the same steps.

    Returns:
        seconds, mean accuracy over sites, and the body of every site after the last round.
    """
    training = experiment.training
    template = build_model("small-cnn", data.dataset.inputs.shape[1:], 10, experiment.seed)
    W = torch.from_numpy(
        build_schedule(experiment.topology, [site.name for site in data.sites]).mixing(0).toarray()
    ).float()
    start = time.perf_counter()
    scale, shift = (torch.from_numpy(v).float().view(-1, 1, 1) for v in (1 / (255.0 * data.std), -data.mean / data.std))
    inputs = torch.addcmul(shift, torch.from_numpy(data.dataset.inputs).float(), scale)
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
                optimizer.zero_grad()
                F.cross_entropy(model(inputs[chosen]), labels[chosen]).backward()
                optimizer.step()
        with torch.no_grad():
            X = torch.stack([torch.cat([p.reshape(-1) for p in body]) for body in bodies])
            for row, body in zip(W @ X, bodies, strict=True):
                torch.nn.utils.vector_to_parameters(row, body)
    with torch.inference_mode():
        accuracies = [
            float((model(inputs[site.test]).argmax(dim=1) == labels[site.test]).float().mean())
            for site, model in zip(data.sites, models, strict=True)
        ]
        for model in models:
            for site in data.sites:
                model(inputs[site.test])  # the engine also evaluates every site's model on the pooled test split
    seconds = time.perf_counter() - start
    return seconds, float(np.mean(accuracies)), [torch.cat([p.detach().reshape(-1) for p in body]) for body in bodies]


def engine(experiment: ExperimentSettings, data: FederatedData) -> tuple[float, float, list[Tensor]]:
    """The whole run, its files included; returns what `floor` returns."""
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        summary = run_simulation(experiment, Path(folder) / "run", data=data)
        seconds = time.perf_counter() - start
        models = [load_file(path) for path in sorted((Path(folder) / "run" / "models").iterdir())]
    names = [name for name in build_model("small-cnn", (1, 28, 28), 10, 0).state_dict() if not name.startswith("head.")]
    bodies = [torch.cat([model[name].reshape(-1) for name in names]) for model in models]
    return seconds, summary["metrics"]["accuracy"]["mean"], bodies


def main() -> None:
    """Run the pairs and print one line each and the median."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("fashion-mnist"), help="folder with the idx files")
    parser.add_argument("--pairs", type=int, default=5, help="how often engine and floor take turns")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    experiment = settings(arguments.data)
    data = load_data(experiment)
    steps = sum(-(-len(site.train) // 32) for site in data.sites) * experiment.training.rounds
    print(f"{len(data.sites)} sites, {[len(site.train) for site in data.sites]} training images, about {steps} steps")
    ratios = []
    for pair in range(arguments.pairs):
        floor_seconds, floor_accuracy, floor_bodies = floor(experiment, data)
        engine_seconds, accuracy, bodies = engine(experiment, data)
        agree = all(torch.equal(own, other) for own, other in zip(bodies, floor_bodies, strict=True))
        ratios.append(engine_seconds / floor_seconds)
        print(
            f"pair {pair + 1}: floor {floor_seconds:.2f} s (accuracy {floor_accuracy:.4f}), "
            f"engine {engine_seconds:.2f} s (accuracy {accuracy:.4f}), ratio {ratios[-1]:.3f}, "
            f"bodies {'agree' if agree else 'DIFFER'}"
        )
    print(f"engine / floor: median {statistics.median(ratios):.3f} (min {min(ratios):.3f}, max {max(ratios):.3f})")


if __name__ == "__main__":
    main()
