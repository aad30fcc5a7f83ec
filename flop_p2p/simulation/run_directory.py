"""The files of a run: `config.toml`, `metrics.jsonl`, `summary.json`, `models/*.safetensors`."""

import json
import re
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from torch import nn

from flop_p2p.config import ExperimentSettings, first_difference, read_toml, validate
from flop_p2p.errors import RunError
from flop_p2p.partial import Split, save_model
from flop_p2p.simulation.checkpoint import remove_checkpoint
from flop_p2p.writing import write_text, writing

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
        self.checkpoint = path / "checkpoint.json"
        try:
            if (path / "config.toml").exists():
                self._reopen(settings, resume)
            elif path.exists() and any(path.iterdir()):
                raise RunError(f"{path}: not empty and not a run of flop-p2p; choose another --out")
            else:
                path.mkdir(parents=True, exist_ok=True)
                write_text(path / "config.toml", tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
        except OSError as error:
            raise RunError(f"{path}: cannot write the run directory ({error.strerror})") from error

    def _reopen(self, settings: ExperimentSettings, resume: bool) -> None:
        if not resume:
            raise RunError(f"{self.path}: holds a run already; add --resume to go on with it, or choose another --out")
        config = self.path / "config.toml"
        before = validate(ExperimentSettings, read_toml(config), str(config))
        if difference := first_difference(before, settings):
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
            loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
            loaded["metrics"]["accuracy"]["mean"]
        except (ValueError, KeyError, TypeError) as error:
            raise RunError(f"{path}: damaged ({error!r}); delete it to finish this run again") from error
        return loaded

    def metrics(self, count: int) -> list[Line]:
        """The first ``count`` lines; what follows, from rounds after the checkpoint, is cut off the file.

        Raises:
            RunError: one of them is missing or damaged.
        """
        path = self.path / "metrics.jsonl"
        texts = path.read_text(encoding="utf-8").splitlines()[:count] if path.exists() else []
        if len(texts) < count:
            raise RunError(f"{path}: has {len(texts)} of the {count} lines before the checkpoint; begin this run anew")
        lines: list[Line] = []
        for number, text in enumerate(texts, 1):
            try:
                lines.append(json.loads(text))
                lines[-1]["round"]
            except (ValueError, KeyError, TypeError) as error:
                raise RunError(f"{path}, line {number}: damaged ({error!r}); begin this run anew") from error
        write_text(path, "".join(f"{text}\n" for text in texts))
        return lines

    def add_metrics(self, lines: Sequence[Line]) -> None:
        """Append the lines of one round."""
        path = self.path / "metrics.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, last of all, and remove the checkpoint."""
        write_text(self.path / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        remove_checkpoint(self.checkpoint)

    def save_models(self, split: Split, sites: Sequence[str], model_of: Callable[[int], nn.Module]) -> None:
        """Write each site's whole model, body and head, to `models/`.

        Args:
            model_of: the model of the site at a position, asked for one after the other.
        """
        folder = self.path / "models"
        with writing(folder):
            folder.mkdir(exist_ok=True)
        for position, (site, name) in enumerate(zip(sites, file_names(sites), strict=True)):
            path = folder / f"{name}.safetensors"
            with writing(path):
                save_model(path, model_of(position), split, site)


def file_names(sites: Sequence[str]) -> list[str]:
    """A distinct file name for every site, in letters, digits, dots and dashes."""
    names = [re.sub(r"[^A-Za-z0-9.]+", "-", site).strip("-.") or "site" for site in sites]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name}-{index}" for index, name in enumerate(names, 1)]
