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
from flop_p2p.simulation.ranks import ALONE, Ranks
from flop_p2p.writing import write_text, writing

Line = dict[str, Any]


class RunDirectory:
    """Creates or reopens the directory of one run.

    Of several ranks rank 0 reads and writes, and tells the others; only models and parts of checkpoints are written by
    whoever holds them.

    Args:
        resume: go on with what is there; otherwise an existing run is never touched.
        ranks: the processes of the run. All of them call every method.

    Raises:
        RunError: the directory holds another run, cannot be written, or is not the same one at all ranks.
    """

    def __init__(self, path: Path, settings: ExperimentSettings, resume: bool, ranks: Ranks = ALONE) -> None:
        self.path = path
        self.checkpoint = path / "checkpoint.json"
        self._ranks = ranks
        ranks.of_first(lambda: self._open(settings, resume))
        with ranks.together():
            if not (path / "config.toml").exists():
                raise RunError(f"{path}: rank {ranks.rank} does not see what rank 0 wrote; --out must be shared by all")

    def _open(self, settings: ExperimentSettings, resume: bool) -> None:
        path = self.path
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
        return self._ranks.of_first(self._read_summary)

    def _read_summary(self) -> dict[str, Any] | None:
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
        return self._ranks.of_first(lambda: self._read_metrics(count))

    def _read_metrics(self, count: int) -> list[Line]:
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
        self._ranks.of_first(lambda: self._write_metrics(lines))

    def _write_metrics(self, lines: Sequence[Line]) -> None:
        path = self.path / "metrics.jsonl"
        with writing(path), path.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)

    def finish(self, summary: dict[str, Any]) -> None:
        """Write the summary, last of all, and remove the checkpoint."""
        self._ranks.of_first(lambda: self._finish(summary))

    def _finish(self, summary: dict[str, Any]) -> None:
        write_text(self.path / "summary.json", json.dumps(summary, indent=2, allow_nan=False) + "\n")
        remove_checkpoint(self.checkpoint)

    def save_models(
        self, split: Split, sites: Sequence[str], own: Sequence[int], model_of: Callable[[int], nn.Module]
    ) -> None:
        """Write the whole models, body and head, of the sites held here to `models/`.

        Args:
            sites: names of all sites.
            own: positions among them of those held here.
            model_of: the model of one of these by its row, asked for one after the other.
        """
        folder, names = self.path / "models", file_names(sites)
        with self._ranks.together():
            with writing(folder):
                folder.mkdir(exist_ok=True)
            for row, position in enumerate(own):
                path = folder / f"{names[position]}.safetensors"
                with writing(path):
                    save_model(path, model_of(row), split, sites[position])


def file_names(sites: Sequence[str]) -> list[str]:
    """A distinct file name for every site, in letters, digits, dots and dashes."""
    names = [re.sub(r"[^A-Za-z0-9.]+", "-", site).strip("-.") or "site" for site in sites]
    counts = Counter(names)
    return [name if counts[name] == 1 else f"{name}-{index}" for index, name in enumerate(names, 1)]
