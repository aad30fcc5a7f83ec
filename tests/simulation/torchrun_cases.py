"""What `test_torchrun.py` has torchrun start: many small cases in one start, for a start takes seconds.

torchrun ... torchrun_cases.py FOLDER runs|resume
"""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch

from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.errors import FlopError, Interrupted, TrainingError
from flop_p2p.simulation import METHODS, run, run_simulation
from flop_p2p.simulation.exchange import Exchange, build_exchange
from flop_p2p.simulation.ranks import ALONE, Ranks
from flop_p2p.simulation.torchrun import joined

SITES, ROUNDS = 9, 6
MIXED: dict[str, dict[str, Any]] = {
    "ring": {"topology.name": "ring"},
    "one-peer-exponential": {"topology.name": "one-peer-exponential"},
    "base": {"topology.name": "base:2"},
    "full": {"topology.name": "full"},
    "server": {"method": "flop", "training.participation": 0.5},
    "int8": {"topology.name": "ring", "gossip.compression": "int8"},
    "top-k": {"topology.name": "ring", "gossip.compression": "top-k"},
    "masked": {"topology.name": "torus", "privacy.masking": "pairwise"},
}
TRAINED: dict[str, dict[str, Any]] = {
    "ring": {"topology.name": "ring", "training.momentum": 0.9},
    "one-peer-exponential": {"topology.name": "one-peer-exponential", "late_sites": 2},
    "base": {"topology.name": "base:2", "training.optimizer": "adam", "evaluate_every": 2},
    "server": {"method": "fedavg-ft", "training.participation": 0.5, "training.early_stopping": 1},
    "local": {"method": "local", "late_sites": 2},
}
STOPPED = {"topology.name": "base:2", "training.momentum": 0.9}


def settings(overrides: dict[str, Any], rounds: int = 3) -> ExperimentSettings:
    """200 digits at 9 sites, an MLP."""
    fixed = {"data.limit_images": 200, "data.sites": SITES, "model.name": "mlp", "training.rounds": rounds}
    return load_experiment(overrides={**fixed, "training.lr": 0.05, **overrides})


def mixed(overrides: dict[str, Any], ranks: Ranks) -> tuple[Exchange, torch.Tensor]:
    """What a rank's rows of random bodies are after some rounds of mixing alone."""
    experiment = settings(overrides)
    names = [f"site-{index}" for index in range(SITES)]
    exchange = build_exchange(
        METHODS[experiment.method], experiment, names, [20 + index for index in range(SITES)], ranks
    )
    bodies = torch.from_numpy(np.random.default_rng(0).normal(size=(SITES, 10_000)).astype(np.float32))
    rows = bodies[exchange.placement.own]
    exchange.state(rows)
    for round_index in range(ROUNDS):
        exchange.mix(rows, round_index)
    return exchange, rows


def compare(ranks: Ranks) -> dict[str, Any]:
    """How far each case is from one process, relatively; the worst rank counts."""
    found = {}
    for name, overrides in MIXED.items():
        exchange, rows = mixed(overrides, ranks)
        expected = mixed(overrides, ALONE)[1][exchange.placement.own]
        distance = float((rows - expected).norm() / expected.norm())
        found[name] = max(ranks.share(lambda distance=distance: distance))  # type: ignore[misc]
    return found


def fail_at_one(ranks: Ranks) -> list[str]:
    """What each rank meets when training diverges at the last one."""

    def train() -> None:
        if ranks.rank == ranks.count - 1:
            raise TrainingError("site x: diverged")

    try:
        ranks.share(train)
        met = "nothing"
    except FlopError as error:
        met = f"{type(error).__name__}: {error}"
    return ranks.share(lambda: met)


def differ(folder: Path, ranks: Ranks) -> str:
    """What is said where each rank was given other settings."""
    try:
        run_simulation(settings({"seed": ranks.rank}), folder / "different", ranks=ranks)
    except FlopError as error:
        return str(error)
    return "nothing"


def stop(folder: Path, ranks: Ranks) -> str:
    """A run that only the last rank wishes to stop, amid a round."""
    asked = 0

    @contextmanager
    def wish() -> Iterator[Callable[[], bool]]:
        def is_set() -> bool:
            nonlocal asked
            asked += 1
            return asked >= 7 and ranks.rank == ranks.count - 1

        yield is_set

    before, run.stop_wish = run.stop_wish, wish
    try:
        run_simulation(settings(STOPPED), folder / "stopped", ranks=ranks)
    except Interrupted as error:
        return str(error)
    finally:
        run.stop_wish = before
    return "it did not stop"


def main() -> None:
    """Rank 0 leaves what was found in `found.json`."""
    torch.set_num_threads(1)
    folder, what = Path(sys.argv[1]), sys.argv[2]
    with joined("cpu") as ranks:
        found: dict[str, Any] = {"distances": compare(ranks)}
        if what == "runs":
            found["failed"] = fail_at_one(ranks)
            found["different"] = differ(folder, ranks)
            found["stopped"] = stop(folder, ranks)
            for name, overrides in TRAINED.items():
                run_simulation(settings(overrides), folder / name, ranks=ranks)
        else:
            run_simulation(settings(STOPPED), folder / "stopped", resume=True, ranks=ranks)
        if ranks.rank == 0:
            (folder / "found.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main()
