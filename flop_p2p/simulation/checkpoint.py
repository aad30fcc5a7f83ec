"""The state of a running simulation in one file, so that an interrupted run goes on exactly where it was."""

import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flop_p2p.errors import RunError
from flop_p2p.learning import optimizer_tensors, restore_optimizer
from flop_p2p.simulation.population import Population
from flop_p2p.writing import writing


@dataclass
class Progress:
    """How far a run is.

    messages: bodies sent plus received so far, a participant.
    last_round: the round after which the run ends; early stopping lowers it.
    round: completed rounds.
    losses: mean training loss and seconds of the sites that already trained in the round under way.
    seconds: spent so far, by purpose.
    """

    messages: list[int]
    last_round: int
    round: int = 0
    losses: list[tuple[float, float]] = field(default_factory=list)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"total": 0.0, "training": 0.0, "mixing": 0.0, "evaluation": 0.0}
    )


def save_checkpoint(
    path: Path, progress: Progress, population: Population, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Write ``path`` so that a crash leaves either the old file or the new one.

    Raises:
        RunError: it cannot be written.
    """
    tensors = {"bodies": population.bodies, "heads": population.heads}
    for site, optimizer in enumerate(optimizers):
        tensors |= {f"local/{site}/{name}": buffer for name, buffer in population.local_buffers(site).items()}
        tensors |= optimizer_tensors(optimizer, f"optimizer/{site}/")
    temporary = path.with_suffix(".tmp")
    with writing(path):
        save_file(tensors, temporary, metadata={"progress": json.dumps(asdict(progress))})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())
        temporary.replace(path)


def load_checkpoint(path: Path, population: Population, optimizers: Sequence[torch.optim.Optimizer]) -> Progress:
    """Restore everything that `save_checkpoint` wrote, in place, and return the progress.

    Raises:
        RunError: the file is damaged or belongs to other settings.
    """
    try:
        with safe_open(path, framework="pt", device=str(population.bodies.device)) as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        progress = Progress(**json.loads(metadata["progress"]))
        local = [
            {name: tensors[f"local/{site}/{name}"] for name in population.split.local}
            for site in range(len(optimizers))
        ]
        population.load(tensors["bodies"], tensors["heads"], local)
        for site, optimizer in enumerate(optimizers):
            restore_optimizer(optimizer, f"optimizer/{site}/", tensors)
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: damaged checkpoint ({error}); delete it to begin this run anew") from error
    return progress
