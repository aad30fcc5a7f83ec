"""The state of a running simulation on disk, so that an interrupted run goes on exactly where it was.

The tensors of the sites lie in parts, `checkpoint-*.safetensors`, each of some sites; `checkpoint.json`, written after
them, names the parts that belong together. A run may go on with other sites in each part than before.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from flop_p2p.errors import RunError
from flop_p2p.learning.accounting import Entry
from flop_p2p.simulation.population import Population
from flop_p2p.writing import put_in_place, writing

PART_BYTES = 64 << 20  # safetensors copies what it writes, so parts bound the memory that takes
Trained = dict[str, tuple[float, float]]
Part = dict[str, Any]  # file: its name; sites: names of its rows, in order


@dataclass
class Progress:
    """How far a run is.

    traffic: bytes of bodies sent plus received so far, a participant.
    last_round: the round after which the run ends; early stopping lowers it.
    round: completed rounds.
    trained: mean training loss and seconds of the sites that already trained in the round under way, by name.
    seconds: spent so far, by purpose.
    spent: the gradient steps of differentially private training, by name, see `flop_p2p.learning.Ledger`.
    stopped: the round, counted from 1, from which a site trains and sends no more, for its privacy budget is spent.
    """

    traffic: list[int]
    last_round: int
    round: int = 0
    trained: Trained = field(default_factory=dict)
    seconds: dict[str, float] = field(
        default_factory=lambda: {"total": 0.0, "training": 0.0, "mixing": 0.0, "evaluation": 0.0}
    )
    spent: dict[str, list[Entry]] = field(default_factory=dict)
    stopped: dict[str, int] = field(default_factory=dict)


def save_parts(path: Path, progress: Progress, population: Population, names: Sequence[str]) -> list[Part]:
    """Write the tensors of the sites ``names``, the rows of ``population``, beside ``path``; returns their parts.

    Raises:
        RunError: a file cannot be written.
    """
    tensors = population.tensors()
    row_bytes = sum(tensor[0].nbytes for tensor in tensors.values())
    rows = max(1, PART_BYTES // max(1, row_bytes))
    parts = []
    for start in range(0, len(names), rows):
        sites = list(names[start : start + rows])
        digest = hashlib.sha256("\0".join(sites).encode()).hexdigest()[:16]  # other sites, another file
        file = path.parent / f"checkpoint-{progress.round}-{len(progress.trained)}-{digest}.safetensors"
        temporary = file.with_suffix(".tmp")
        with writing(file):
            save_file({name: tensor[start : start + rows].contiguous() for name, tensor in tensors.items()}, temporary)
            put_in_place(temporary, file)
        parts.append({"file": file.name, "sites": sites})
    return parts


def save_manifest(path: Path, progress: Progress, parts: Sequence[Part]) -> None:
    """Make ``parts`` the checkpoint; a crash leaves either the old one or the new one.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_suffix(".tmp")
    with writing(path):
        temporary.write_text(json.dumps({"progress": asdict(progress), "parts": list(parts)}), encoding="utf-8")
        put_in_place(temporary, path)
    _remove_parts(path, {part["file"] for part in parts})


def remove_checkpoint(path: Path) -> None:
    """Remove the checkpoint and its parts, if there are any."""
    path.unlink(missing_ok=True)
    _remove_parts(path, set())


def load_checkpoint(path: Path, population: Population, names: Sequence[str]) -> Progress:
    """Restore, in place, the sites ``names``, the rows of ``population``, and return the progress.

    Raises:
        RunError: a file is missing or damaged, or belongs to other settings.
    """
    try:
        manifest = json.loads(path.read_text(encoding="utf-8"))
        progress = Progress(**manifest["progress"])
        rows = {name: row for row, name in enumerate(names)}
        found = sum(
            _load_part(path.parent / part["file"], part["sites"], population, rows) for part in manifest["parts"]
        )
        if found < len(names):
            raise ValueError(f"{len(names) - found} sites are missing")
    except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
        raise RunError(f"{path}: damaged checkpoint ({error}); delete it to begin this run anew") from error
    return progress


def _load_part(file: Path, sites: Sequence[str], population: Population, rows: dict[str, int]) -> int:
    """Take over the rows of one part that are wanted; returns how many."""
    wanted = [(index, rows[site]) for index, site in enumerate(sites) if site in rows]
    if wanted:
        with safe_open(file, framework="pt") as opened:
            for name, tensor in population.tensors().items():
                stored = opened.get_slice(name)
                if stored.get_shape() != [len(sites), *tensor.shape[1:]]:
                    raise ValueError(f"{file.name}: {name} has the shape {stored.get_shape()}")
                for index, row in wanted:
                    tensor[row] = stored[index : index + 1][0]
    return len(wanted)


def _remove_parts(path: Path, keep: set[str]) -> None:
    for file in path.parent.glob("checkpoint-*"):
        if file.name not in keep:
            file.unlink(missing_ok=True)
