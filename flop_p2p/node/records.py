"""What a node writes down about its rounds: `metrics.jsonl`, and `summary.json` at the end."""

import json
from pathlib import Path
from typing import Any

from flop_p2p.errors import NodeError
from flop_p2p.writing import write_text, writing

Line = dict[str, Any]


class Records:
    """The figures of one node, round by round.

    Args:
        rounds_kept: lines of later rounds, written after the checkpoint that the node resumes from, are cut off.

    Raises:
        NodeError: `metrics.jsonl` is damaged.
    """

    def __init__(self, folder: Path, rounds_kept: int) -> None:
        self._path = folder / "metrics.jsonl"
        self._summary = folder / "summary.json"
        self.lines: list[Line] = self._read(rounds_kept)
        kept = "".join(json.dumps(line) + "\n" for line in self.lines)
        if self._path.exists() and self._path.read_text(encoding="utf-8") != kept:
            write_text(self._path, kept)

    def _read(self, rounds_kept: int) -> list[Line]:
        if not self._path.exists():
            return []
        lines: list[Line] = []
        for number, text in enumerate(self._path.read_text(encoding="utf-8").splitlines(), 1):
            try:
                line = json.loads(text)
                kept = line["round"] <= rounds_kept
            except (ValueError, KeyError, TypeError) as error:
                if rounds_kept <= len(lines):
                    break  # a line half written when the node died, of a round that is run again
                raise NodeError(f"{self._path}, line {number}: damaged ({error!r}); move the file away") from error
            if kept:
                lines.append(line)
        return lines

    def add(self, line: Line) -> None:
        """Append the line of one round."""
        self.lines.append(line)
        with writing(self._path), self._path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    @property
    def last(self) -> Line | None:
        """The latest line, if any."""
        return self.lines[-1] if self.lines else None

    def finished(self) -> dict[str, Any] | None:
        """The summary that was written, None if there is none.

        Raises:
            NodeError: it is damaged.
        """
        if not self._summary.exists():
            return None
        try:
            summary: dict[str, Any] = json.loads(self._summary.read_text(encoding="utf-8"))
        except ValueError as error:
            raise NodeError(f"{self._summary}: damaged ({error}); move the file away") from error
        return summary

    def finish(self, summary: dict[str, Any]) -> None:
        """Write `summary.json`."""
        write_text(self._summary, json.dumps(summary, indent=2, allow_nan=False) + "\n")
