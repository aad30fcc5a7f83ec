"""The files of a run: `config.toml`, `metrics.jsonl`, `summary.json`, `models/*.safetensors`."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import tomli_w
from safetensors.torch import save_file

from flop_p2p.config import ExperimentSettings, read_toml
from flop_p2p.errors import RunError
from flop_p2p.simulation.population import Population

Line = dict[str, Any]


class RunDirectory:
    """Creates or reopens the directory of one run.

    Args:
        resume: go on with what is there; otherwise an existing run is never touched.

    Raises:
        RunError: the directory holds another run, or cannot be written.
    """

    def __init__(self, path: Path, settings: ExperimentSettings, resume: bool) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.safetensors"
        config = settings.model_dump(mode="json", exclude_none=True)
        try:
            if (path / "config.toml").exists():
                self._reopen(config, resume)
            elif path.exists() and any(path.iterdir()):
                raise RunError(f"{path}: not empty and not a run of flop-p2p; choose another --out")
            else:
                path.mkdir(parents=True, exist_ok=True)
                (path / "config.toml").write_text(tomli_w.dumps(config))
        except OSError as error:
            raise RunError(f"{path}: cannot write the run directory ({error.strerror})") from error

    def _reopen(self, config: dict[str, Any], resume: bool) -> None:
        if not resume:
            raise RunError(f"{self.path}: holds a run already; add --resume to go on with it, or choose another --out")
        difference = _first_difference(read_toml(self.path / "config.toml"), config)
        if difference:
            raise RunError(f"{self.path}: cannot resume with other settings: {difference}")

    def summary(self) -> dict[str, Any] | None:
        """The summary of a finished run, or None.

        Raises:
            RunError: the file is damaged.
        """
        path = self.path / "summary.json"
        if not path.exists():
            return None
        try:
            loaded: dict[str, Any] = json.loads(path.read_text())
        except ValueError as error:
            raise RunError(f"{path}: damaged ({error}); delete it to finish this run again") from error
        return loaded

    def metrics(self, rounds: int) -> list[Line]:
        """The lines of the first ``rounds`` rounds; later ones, whose round was lost, are cut off the file.

        Raises:
            RunError: lines are missing or damaged.
        """
        path = self.path / "metrics.jsonl"
        lines: list[Line] = []
        if path.exists():
            for number, text in enumerate(path.read_text().splitlines(), 1):
                try:
                    line = json.loads(text)
                except ValueError as error:
                    raise RunError(f"{path}, line {number}: damaged ({error}); begin this run anew") from error
                if line["round"] > rounds:
                    break
                lines.append(line)
        if rounds and (not lines or lines[-1]["round"] != rounds):
            raise RunError(f"{path}: ends before round {rounds} of the checkpoint; begin this run anew")
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        return lines

    def add_metrics(self, lines: Sequence[Line]) -> None:
        """Append the lines of one round."""
        with (self.path / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, last of all, and remove the checkpoint."""
        temporary = self.path / "summary.tmp"
        temporary.write_text(json.dumps(summary, indent=2) + "\n")
        temporary.replace(self.path / "summary.json")
        self.checkpoint.unlink(missing_ok=True)

    def save_models(self, population: Population, sites: Sequence[str]) -> None:
        """Write each site's whole model, body and head, to `models/`."""
        folder = self.path / "models"
        folder.mkdir(exist_ok=True)
        for model, site, name in zip(population.models, sites, file_names(sites), strict=True):
            tensors = {key: value.contiguous() for key, value in model.state_dict().items()}
            metadata = {
                "site": site,
                "body_sha256": population.split.body.sha256,
                "head": json.dumps(population.split.head.names),
            }
            save_file(tensors, folder / f"{name}.safetensors", metadata=metadata)


def file_names(sites: Sequence[str]) -> list[str]:
    """A distinct file name for every site, in letters, digits, dots and dashes."""
    names = [re.sub(r"[^A-Za-z0-9.]+", "-", site).strip("-.") or "site" for site in sites]
    return [name if names.count(name) == 1 else f"{name}-{index}" for index, name in enumerate(names, 1)]


def _first_difference(old: dict[str, Any], new: dict[str, Any], prefix: str = "") -> str | None:
    for key in sorted(old.keys() | new.keys()):
        before, now = old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(now, dict):
            if difference := _first_difference(before, now, f"{prefix}{key}."):
                return difference
        elif before != now:
            return f"{prefix}{key} was {before!r} and is now {now!r}"
    return None
