"""How far the daemons of a local federation are, by what they answer, what they wrote, and how they ended."""

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flop_p2p.local.prepare import LocalSite

LONGEST_QUOTE = 300  # characters

Snapshot = dict[str, Any]


@dataclass(frozen=True)
class DaemonState:
    """One daemon at this moment.

    answer: what it said of itself last, None if it never answered.
    silent: it answered before and does not now, as one that ends does.
    exit_code: None while it runs.
    completed: rounds that are complete, counted by its `metrics.jsonl`; 0 until it answers.
    accuracies: on its own test split, by round, of the rounds that were evaluated.
    """

    site: LocalSite
    answer: Snapshot | None
    exit_code: int | None
    completed: int
    accuracies: Mapping[int, float]
    silent: bool = False

    @property
    def failed(self) -> bool:
        """It ended with an error."""
        return self.exit_code not in (None, 0)

    @property
    def begins(self) -> bool:
        """It runs and waits for neighbours before its first round, or does not answer yet."""
        waits = self.answer is None or (self.answer["phase"] == "starting" and not self.silent)
        return self.exit_code is None and waits


class Rounds:
    """The rounds in a `metrics.jsonl` that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._offset = 0
        self.completed = 0
        self.accuracies: dict[int, float] = {}

    def read(self) -> None:
        """Take in the lines written since the last call; a line half written waits for the next."""
        try:
            with self._path.open("rb") as file:
                file.seek(self._offset)
                block = file.read()
        except OSError:
            return  # not there yet; `collect` tells of one that cannot be read in the end
        whole = block[: block.rfind(b"\n") + 1]
        self._offset += len(whole)
        for text in whole.splitlines():
            with suppress(ValueError, KeyError, TypeError):  # damaged: likewise
                line = json.loads(text)
                self.completed = max(self.completed, line["round"])
                if line["test"] is not None:
                    self.accuracies[line["round"]] = line["test"]["accuracy"]


def dead_end(states: Mapping[str, DaemonState]) -> str | None:
    """Why nothing more can come of the daemons that still run, or None: a name and a reason, the start of a sentence.

    That is where one failed before it was ever ready or before the others began, and where all that run wait to begin
    with neighbours that have ended.
    """
    running = {name: each for name, each in states.items() if each.exit_code is None}
    none_began = all(each.begins for each in running.values())
    for name, each in states.items():
        never_ready = each.answer is None and not each.completed  # one that dies at once may not have been asked
        if each.failed and (never_ready or (none_began and running)):
            when = "before it was ready" if never_ready else "before the others began"
            return f"{name} ended with exit code {each.exit_code} {when}"
    if none_began and running and len(running) < len(states):
        neighbours = [set((each.answer or {"neighbours": running})["neighbours"]) for each in running.values()]
        if not any(each & set(running) for each in neighbours):
            return f"{', '.join(running)} cannot go on, for all neighbours have ended: begin anew with another --out"
    return None


def last_words(log: Path, start: int = 0) -> str | None:
    """The last line in ``log`` from byte ``start`` on: of a JSON line its event. None if there is none."""
    with suppress(OSError), log.open("rb") as file:
        file.seek(start)
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        if lines:
            try:
                text = str(json.loads(lines[-1])["event"])
            except (ValueError, KeyError, TypeError):
                text = lines[-1].strip().removeprefix("error: ")
            return text[:LONGEST_QUOTE]
    return None
