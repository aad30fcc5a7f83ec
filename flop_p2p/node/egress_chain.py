"""Reading an egress log back line by line, and naming the line at which its chain breaks."""

import hashlib
from collections.abc import Container, Iterator
from dataclasses import dataclass
from pathlib import Path

from flop_p2p.errors import EgressError
from flop_p2p.node.egress import EGRESS
from flop_p2p.node.egress_line import GENESIS, MAX_LINE, EgressLine, parse_egress_line
from flop_p2p.node.lines import log_files


@dataclass(frozen=True, slots=True)
class Entry:
    """A line of the log: its file, its number in the file counted from 1, its content, and its SHA-256."""

    path: Path
    row: int
    line: EgressLine
    hash: str

    @property
    def where(self) -> str:
        """File and line, for a message."""
        return place(self.path, self.row)


def place(path: Path, row: int) -> str:
    """File and line, for a message."""
    return f"{path}, line {row}"


def rows(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file with their numbers; a newline at the end of each but perhaps the last. None is too long.

    Raises:
        EgressError: the file cannot be read.
    """
    try:
        with path.open("rb") as file:
            yield from enumerate(iter(lambda: file.readline(MAX_LINE), b""), 1)
    except OSError as error:
        raise EgressError(f"{path}: cannot be read ({error.strerror})") from error


def read_entries(folder: Path) -> Iterator[Entry]:
    """All lines of the log in a state directory, unchecked but for their form.

    Raises:
        EgressError: a line is not one of this log; its place is named.
    """
    for path in log_files(folder, EGRESS):
        for row, raw in rows(path):
            if not raw.endswith(b"\n"):
                raise EgressError(
                    f"{place(path, row)}: not a whole line: edited, cut, or the machine stopped while it was written; "
                    "in the last case the node mends it when it starts"
                )
            line = raw[:-1]
            yield Entry(path, row, parse_egress_line(line, place(path, row)), hashlib.sha256(line).hexdigest())


def follow(entries: Iterator[Entry], known: Container[str]) -> Iterator[Entry]:
    """Hand the entries on as long as each has the next number and the hash of the one before.

    Args:
        known: hashes of genuine lines that were kept elsewhere; they tell which of two lines is the false one.

    Raises:
        EgressError: an entry does not follow; the false line is named.
    """
    before: Entry | None = None
    number, previous = 1, GENESIS.hex()
    for entry in entries:
        if entry.line.number != number or entry.line.previous != previous:
            raise _break(before, entry, number, previous, _is_genuine(entry, next(entries, None), known))
        yield entry
        before, number, previous = entry, number + 1, entry.hash


def _is_genuine(entry: Entry, after: Entry | None, known: Container[str]) -> bool | None:
    """Whether the line after ``entry``, or somebody else, vouches for it; None if nobody can tell."""
    if after is not None:
        return after.line.previous == entry.hash
    return True if entry.hash in known else None


def _break(before: Entry | None, entry: Entry, number: int, previous: str, genuine: bool | None) -> EgressError:
    """What is wrong where ``entry`` does not follow ``before``.

    Args:
        number, previous: that the entry should have.
        genuine: whether the entry is; if so, the line before it is false.
    """
    found = entry.line.number
    if before is not None and genuine is not False and found in (number - 1, number):
        where = before.where if genuine else f"{before.where}, or {entry.where}"
        what = (
            "edited; the next holds the hash of another" if found == number else f"inserted; number {found} comes twice"
        )
        return EgressError(f"{where}: {what}")
    if entry.line.previous == previous:
        return EgressError(f"{entry.where}: edited; number {found} where {number} is due")
    if found == number:
        return EgressError(f"{entry.where}: edited or inserted; it does not hold the hash of the line before")
    cause = "a line is missing" if found > number else "inserted"
    return EgressError(f"{entry.where}: number {found} where {number} is due: {cause} or out of order")
