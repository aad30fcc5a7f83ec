"""The state of a node on disk: a crash at any moment leaves a whole checkpoint, and a damaged one is passed over."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flop_p2p.errors import NodeError
from flop_p2p.node.worker import Partway, SiteModel
from flop_p2p.writing import put_in_place

CheckpointPhase = Literal["training", "published", "done"]
KEPT = 2
FILE_NAME = re.compile(r"checkpoint-(\d+)\.safetensors")
LOSSES, RANDOM = "partway/losses", "partway/random/"
DAMAGE = (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError)


@dataclass
class Progress:
    """How far a node is.

    round: the one under way, counted from 0; after the last one, how many there were.
    phase: ``training`` (begun or about to begin), ``published`` (the body is final and may have left), or ``done``.
    federation_id: of the revision that held.
    chain: hash of the last line of the egress log, hexadecimal.
    partway: where training was inside the round.
    extra: whatever else the node counts, as JSON.
    """

    round: int
    phase: CheckpointPhase
    federation_id: str
    chain: str
    partway: Partway | None = None
    extra: dict[str, Any] = field(default_factory=dict)


class Checkpoints:
    """The checkpoints in ``folder``, ``checkpoint-<n>.safetensors`` with increasing n; the last two are kept.

    Attributes:
        warnings: a line on each damaged checkpoint that `load` passed over.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._damaged: set[Path] = set()
        self.warnings: list[str] = []

    def save(self, model: SiteModel, progress: Progress) -> None:
        """Write a checkpoint: to a temporary name, to the disk, and only then to its own name.

        Raises:
            NodeError: it cannot be written; those before are as they were.
        """
        files = self._files()
        path = self._folder / f"checkpoint-{_number(files[-1]) + 1 if files else 1}.safetensors"
        tensors = {name: tensor.contiguous() for name, tensor in model.tensors().items()}
        tensors |= _partway_tensors(progress.partway)
        text = json.dumps({key: value for key, value in vars(progress).items() if key != "partway"})
        metadata = {"progress": text, "site": model.name, "schema": _schema(model)}
        metadata["sha256"] = _digest(metadata, tensors)
        temporary = self._folder / "checkpoint.tmp"
        try:
            save_file(tensors, temporary, metadata=metadata)
            put_in_place(temporary, path)
            self._remove_old([*files, path])
        except (OSError, SafetensorError) as error:
            reason = getattr(error, "strerror", None) or error
            raise NodeError(
                f"{path}: cannot be written ({reason}); make room or mend the disk, then restart"
            ) from error

    def load(self, model: SiteModel) -> Progress | None:
        """Restore ``model`` from the newest checkpoint that is whole; None if there is none.

        Raises:
            NodeError: the checkpoint is of another site, or of another model or split.
        """
        for path in reversed(self._files()):
            try:
                metadata, tensors = _read(path)
                progress = _progress(metadata, tensors)
            except DAMAGE as error:
                self._damaged.add(path)
                self.warnings.append(f"{path}: damaged ({error}); the checkpoint before it is used, if there is one")
                continue
            _check_origin(path, metadata, model)
            model.restore(tensors)
            return progress
        return None

    def _files(self) -> list[Path]:
        """Checkpoints, oldest first."""
        found = [path for path in self._folder.glob("checkpoint-*.safetensors") if FILE_NAME.fullmatch(path.name)]
        return sorted(found, key=_number)

    def _remove_old(self, files: list[Path]) -> None:
        """Of ``files``, keep the last whole ones."""
        kept = [path for path in files if path not in self._damaged][-KEPT:]
        for path in files:
            if path not in kept:
                path.unlink(missing_ok=True)


def _number(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint-"))


def _check_origin(path: Path, metadata: Mapping[str, str], model: SiteModel) -> None:
    remedy = "give this site a state directory of its own, or the settings that it ran with"
    if metadata["site"] != model.name:
        raise NodeError(f"{path}: is of site {metadata['site']!r}, and this is {model.name}; {remedy}")
    if metadata["schema"] != _schema(model):
        raise NodeError(f"{path}: is of another model or split than federation.toml asks for; {remedy}")


def _schema(model: SiteModel) -> str:
    return f"{model.split.body.sha256} {model.split.head.sha256}"


def _digest(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over everything in a checkpoint but itself."""
    described = {key: value for key, value in metadata.items() if key != "sha256"}
    digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.cpu().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    with safe_open(path, framework="pt") as file:
        metadata: dict[str, str] = file.metadata() or {}
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    if "sha256" not in metadata:
        raise ValueError("not written by a node")
    if _digest(metadata, tensors) != metadata["sha256"]:
        raise ValueError("its SHA-256 differs")
    return metadata, tensors


def _partway_tensors(partway: Partway | None) -> dict[str, Tensor]:
    if partway is None:
        return {}
    return {LOSSES: partway.losses, **{f"{RANDOM}{number}": state for number, state in enumerate(partway.random)}}


def _progress(metadata: Mapping[str, str], tensors: Mapping[str, Tensor]) -> Progress:
    partway = None
    if LOSSES in tensors:
        states = sorted(name for name in tensors if name.startswith(RANDOM))
        partway = Partway(tensors[LOSSES], tuple(tensors[name] for name in states))
    return Progress(partway=partway, **json.loads(metadata["progress"]))
