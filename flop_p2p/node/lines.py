"""A file of lines that only ever grows: rotated by size, healed after a crash, never shortened or deleted."""

import errno
import logging
import os
import re
from pathlib import Path

from flop_p2p.writing import put_in_place, sync_folder

MAX_BYTES = 16 << 20  # of one file; then it is renamed and a new one begun
BLOCK = 1 << 16

logger = logging.getLogger(__name__)


def log_files(folder: Path, stem: str) -> list[Path]:
    """The files of a log in the order in which they were written: ``STEM-000001.jsonl``, ..., ``STEM.jsonl``."""
    rotated = sorted((number, path) for path in folder.glob(f"{stem}-*.jsonl") if (number := _number(path, stem)))
    current = folder / f"{stem}.jsonl"
    return [path for _, path in rotated] + [current] * current.exists()


def _number(path: Path, stem: str) -> int:
    found = re.fullmatch(re.escape(stem) + r"-(\d{6,})\.jsonl", path.name)
    return int(found[1]) if found else 0


class LineLog:
    """Appends lines to ``<folder>/<stem>.jsonl``, which no other process may write.

    A line is written by one call, so a process that is killed leaves whole lines. A machine that loses power, or a
    full disk, may leave half a line at the end. Opening the log moves that half to ``<stem>.torn-N`` and cuts it
    off: the message of a line that was not completely written was never sent.

    Args:
        max_bytes: size from which a file is rotated to ``<stem>-000001.jsonl`` and so on.

    Attributes:
        file: descriptor of the file that grows.
        unsynced: a line of it may not survive a loss of power.
        sync_failed: waiting for the disk has failed; which lines survive, nobody knows.

    Raises:
        OSError: from every method, where the disk fails or another program has touched the file. Then close the
            log and open it anew.
    """

    def __init__(self, folder: Path, stem: str, max_bytes: int = MAX_BYTES) -> None:
        self.path = folder / f"{stem}.jsonl"
        self._stem = stem
        self._max_bytes = max_bytes
        self.unsynced = self.sync_failed = False
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        if self.path.exists():
            self._heal()
        self.last_line = self._last_line()
        self._begin()

    def append(self, line: bytes, durable: bool) -> None:
        """Write ``line`` (without newline); ``durable`` waits until it would survive a loss of power."""
        data = line + b"\n"
        self._check_untouched()
        if self._size and self._size + len(data) > self._max_bytes:
            self._rotate()
        self.unsynced = True
        written = os.write(self.file, data)
        self._size += written
        if written < len(data):
            raise OSError(errno.ENOSPC, "only a part of a line was written")
        if durable:
            self.sync()
        self.last_line = line

    def sync(self) -> None:
        """Wait until all lines would survive a loss of power."""
        if self.unsynced:
            self.sync_failed = True
            os.fsync(self.file)
            self.unsynced = self.sync_failed = False

    def close(self) -> None:
        """Close the file."""
        os.close(self.file)

    def _begin(self) -> None:
        self.file = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        state = os.fstat(self.file)
        self._identity, self._size = (state.st_dev, state.st_ino), state.st_size
        sync_folder(self.path.parent)

    def _check_untouched(self) -> None:
        """Lines that went to a deleted or replaced file would be lost without anybody noticing."""
        state = self.path.stat()
        if (state.st_dev, state.st_ino) != self._identity or state.st_size != self._size:
            raise OSError(errno.ESTALE, "another program has replaced or changed it")

    def _rotate(self) -> None:
        self.unsynced = True  # even if another thread is at it: no line of the next file may be safe before these
        self.sync()
        numbers = [_number(path, self._stem) for path in log_files(self.path.parent, self._stem)]
        self.path.rename(self.path.with_name(f"{self._stem}-{max(numbers, default=0) + 1:06d}.jsonl"))
        os.close(self.file)
        self._begin()

    def _heal(self) -> None:
        _, end = _read_end(self.path)
        with self.path.open("rb+") as file:
            file.seek(end)
            torn = file.read()
            if not torn:
                return
            target = _write_new(self.path.parent, f"{self._stem}.torn", torn)
            file.truncate(end)
            os.fsync(file.fileno())
        logger.warning(
            "%s ended with half a line, whose message was never sent; its %d bytes are kept in %s",
            self.path,
            len(torn),
            target.name,
        )

    def _last_line(self) -> bytes | None:
        for path in reversed(log_files(self.path.parent, self._stem)):
            line, _ = _read_end(path)
            if line is not None:
                return line
        return None


def _read_end(path: Path) -> tuple[bytes | None, int]:
    """The last complete line of a file without its newline (None if there is none), and where it ends."""
    with path.open("rb") as file:
        start = file.seek(0, os.SEEK_END)
        end = b""
        while start > 0 and end.count(b"\n") < 2:
            step = min(BLOCK, start)
            start -= step
            file.seek(start)
            end = file.read(step) + end
    complete, newline, _ = end.rpartition(b"\n")
    line = complete.rpartition(b"\n")[2] if newline else None
    return line, start + len(complete) + len(newline)


def _write_new(folder: Path, name: str, content: bytes) -> Path:
    """Write ``content`` to the first file ``name-N`` that does not exist yet."""
    number = 1
    while (path := folder / f"{name}-{number}").exists():
        number += 1
    replace_durably(path, content)
    return path


def replace_durably(path: Path, content: bytes) -> None:
    """Replace a small file so that a crash leaves the old or the new one, and the new one survives a loss of power."""
    temporary = path.with_name(f"{path.name}.tmp")
    with temporary.open("wb") as file:
        temporary.chmod(0o600)
        file.write(content)
    put_in_place(temporary, path)
