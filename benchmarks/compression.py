"""What compression costs in accuracy and saves in bytes, in simulations: Fashion-MNIST, Dirichlet 0.3, a ring of 8.

Quantizers: 20 rounds of one local epoch without compression, with bfloat16 and with int8. Figures are test accuracies
after the last round (each site's own model on its own test split, mean over sites), their differences to no
compression, paired by seed, with 95 % Student t intervals, and how many times fewer bytes were sent.

Changes alone (top-k 1 %, CHOCO-SGD): 200 rounds of two gradient steps, evaluated every 10. The consensus step is the
one with the best validation accuracy, mean over the second half of the rounds, of a seed that is not used again. The
target is the accuracy that the runs without compression have at their half, mean over the seeds; the figures say after
how many rounds and bytes the runs with changes alone first have it, and after how many those without compression first
had it.

    python benchmarks/compression.py [--data FOLDER] [--plot FILE] [--small]

The folder holds the idx files of Fashion-MNIST; default $FLOP_P2P_DATA/fashion-mnist. Without them, and with --small,
the bundled digits are taken.
"""

import argparse
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from machine import data_folder
from matplotlib.figure import Figure

from flop_p2p.comparison.statistics import Estimate, estimate, rounds_to
from flop_p2p.config import load_experiment
from flop_p2p.simulation import run_simulation

STEPS = (0.05, 0.1, 0.15)
TUNING_SEED = 100


@dataclass(frozen=True)
class Curve:
    """One run: what it had after each evaluated round; bytes are those sent by all sites until then."""

    rounds: np.ndarray
    size: np.ndarray
    validation: np.ndarray
    test: np.ndarray


@dataclass(frozen=True)
class Plan:
    """How much is run."""

    data: dict[str, Any]
    seeds: int
    epochs: dict[str, Any]
    steps: dict[str, Any]


def plan(folder: Path | None, small: bool) -> Plan:
    """The settings of all runs."""
    data: dict[str, Any] = {"data.source": "digits", "data.limit_images": 300 if small else 1797}
    if folder is not None and not small:
        data = {"data.source": "idx", "data.path": folder, "data.limit_images": 8000}
    data |= {"data.sites": 8, "data.partition": "dirichlet:0.3", "data.min_site_images": 20}
    data |= {"model.name": "small-cnn", "topology.name": "ring"}
    epochs = {"training.rounds": 2 if small else 20, "training.lr": 0.02, "evaluate_every": 0}
    steps = {
        "training.rounds": 6 if small else 200,
        "training.local_steps": 2,
        "training.lr": 0.03,
        "evaluate_every": 1 if small else 10,
    }
    return Plan(data, 2 if small else 5, epochs, steps)


def run(overrides: dict[str, Any], compression: str, seed: int, step: float | None = None) -> Curve:
    """Simulate once."""
    gossip: dict[str, Any] = {"gossip.compression": compression}
    if step is not None:
        gossip["gossip.consensus_step"] = step
    settings = load_experiment(overrides={**overrides, **gossip, "seed": seed})
    with tempfile.TemporaryDirectory() as out:
        run_simulation(settings, Path(out) / "run", save_models=False)
        lines = [json.loads(text) for text in (Path(out) / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluated = [line for line in lines if line["test"] is not None]
    rounds = sorted({line["round"] for line in evaluated})
    of = {number: [line for line in evaluated if line["round"] == number] for number in rounds}
    curve = Curve(
        np.array(rounds),
        np.array([of[number][0]["bytes_total"] for number in rounds]),
        *(
            np.array([np.mean([line[part]["accuracy"] for line in of[number] if line[part]]) for number in rounds])
            for part in ("validation", "test")
        ),
    )
    print(f"{compression}, step {step}, seed {seed}: {curve.test[-1]:.4f}", file=sys.stderr, flush=True)
    return curve


def quantizers(plan: Plan) -> dict[str, Any]:
    """Accuracy and bytes without compression, with bfloat16 and with int8."""
    curves = {
        compression: [run(plan.data | plan.epochs, compression, seed) for seed in range(plan.seeds)]
        for compression in ("none", "bfloat16", "int8")
    }
    figures = {
        f"{name}_accuracy": float(np.mean([curve.test[-1] for curve in found])) for name, found in curves.items()
    }
    for name in ("bfloat16", "int8"):
        pairs = zip(curves[name], curves["none"], strict=True)
        paired = estimate({seed: float(ours.test[-1] - whole.test[-1]) for seed, (ours, whole) in enumerate(pairs)})
        figures |= interval(f"{name}_accuracy_difference", paired)
        figures[f"{name}_times_fewer_bytes"] = float(curves["none"][0].size[-1] / curves[name][0].size[-1])
    return figures


def interval(name: str, found: Estimate) -> dict[str, Any]:
    """Mean and limits as figures."""
    return {name: found.mean, f"{name}_low": found.low, f"{name}_high": found.high}


def changes_alone(plan: Plan) -> tuple[dict[str, Any], dict[str, list[Curve]]]:
    """The figures of top-k, and the runs without and with it."""
    overrides = plan.data | plan.steps
    tried = {}
    for step in STEPS:
        validation = run(overrides, "top-k", TUNING_SEED, step).validation
        tried[step] = float(validation[len(validation) // 2 :].mean())
    chosen = max(tried, key=lambda step: tried[step])
    curves = {
        "none": [run(overrides, "none", seed) for seed in range(plan.seeds)],
        "top-k": [run(overrides, "top-k", seed, chosen) for seed in range(plan.seeds)],
    }
    figures: dict[str, Any] = {f"top_k_validation_at_step_{step}": value for step, value in tried.items()}
    return figures | {"top_k_step": chosen} | to_target(curves) | by_seed(curves), curves


def to_target(curves: dict[str, list[Curve]]) -> dict[str, Any]:
    """When the mean over the seeds first has the accuracy that it has without compression at half of the rounds."""
    means = {name: np.mean([curve.test for curve in found], axis=0) for name, found in curves.items()}
    rounds, sizes = curves["none"][0].rounds, {name: found[0].size for name, found in curves.items()}
    middle = len(rounds) // 2 - 1
    target, at_half = float(means["none"][middle]), int(sizes["none"][middle])
    figures = {"half_round": int(rounds[middle]), "target_accuracy": target, "none_bytes_at_half": at_half}
    for name, mean in means.items():
        key, reached = name.replace("-", "_"), rounds_to(target, rounds.tolist(), mean.tolist())
        spent = None if reached is None else int(sizes[name][rounds == reached][0])
        figures |= {f"{key}_accuracy_of_long_runs": float(mean[-1]), f"{key}_rounds_to_target": reached}
        figures |= {
            f"{key}_bytes_to_target": spent,
            f"{key}_times_fewer_bytes_than_half": None if spent is None else at_half / spent,
        }
    growth = {name: np.diff(size)[-1] for name, size in sizes.items()}
    return figures | {"top_k_times_fewer_bytes_a_round": float(growth["none"] / growth["top-k"])}


def by_seed(curves: dict[str, list[Curve]]) -> dict[str, Any]:
    """The difference after the last round, and how many times fewer bytes each seed needs to its own target."""
    pairs = list(zip(curves["top-k"], curves["none"], strict=True))
    middle = len(pairs[0][0].rounds) // 2 - 1
    paired = estimate({seed: float(ours.test[-1] - whole.test[-1]) for seed, (ours, whole) in enumerate(pairs)})
    there = [(ours.size[ours.test >= whole.test[middle]], whole.size[middle]) for ours, whole in pairs]
    ratios = [float(at_half / spent[0]) for spent, at_half in there if len(spent)]
    return {
        **interval("top_k_accuracy_difference", paired),
        "top_k_seeds_at_their_own_target": len(ratios),
        "top_k_least_times_fewer_bytes_of_a_seed": min(ratios, default=None),
        "top_k_most_times_fewer_bytes_of_a_seed": max(ratios, default=None),
    }


def draw(curves: dict[str, list[Curve]], target: float, file: Path) -> None:
    """Accuracy against megabytes sent by all sites: mean and range over the seeds."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    labels = {"none": "whole bodies", "top-k": "top-k 1 % (CHOCO-SGD)"}
    for name, found in curves.items():
        tests, megabytes = np.array([curve.test for curve in found]), found[0].size / 1e6
        (line,) = axes.plot(megabytes, tests.mean(axis=0), marker="o", markersize=3, label=labels[name])
        axes.fill_between(megabytes, tests.min(axis=0), tests.max(axis=0), color=line.get_color(), alpha=0.15)
    axes.axhline(target, color="grey", linestyle="--", linewidth=1, label="whole bodies at half of the rounds")
    axes.set(xscale="log", xlabel="megabytes sent by all 8 sites", ylabel="test accuracy, mean over sites")
    axes.grid(alpha=0.3)
    axes.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=150)


def measure(small: bool = False, folder: Path | None = None, plot: Path | None = None) -> dict[str, Any]:
    """All figures by name; accuracies are fractions, sizes bytes."""
    folder = folder or data_folder("fashion-mnist")
    asked = plan(folder, small)
    figures = {"data": "digits" if folder is None or small else "Fashion-MNIST", "seeds": asked.seeds}
    figures |= quantizers(asked)
    found, curves = changes_alone(asked)
    if plot is not None:
        draw(curves, found["target_accuracy"], plot)
    return figures | found


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the idx files of Fashion-MNIST")
    parser.add_argument("--plot", type=Path, help="draw accuracy against bytes into this file")
    parser.add_argument("--small", action="store_true", help="a few seconds, to see that it works")
    arguments = parser.parse_args()
    for name, value in measure(arguments.small, arguments.data, arguments.plot).items():
        print(f"{name:45} {value:.5g}" if isinstance(value, int | float) else f"{name:45} {value}")


if __name__ == "__main__":
    main()
