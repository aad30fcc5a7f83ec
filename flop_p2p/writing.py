"""Writing files: whole or not at all, and one clear line when it fails."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from flop_p2p.errors import RunError


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn a failure to write ``path`` within the block into a `RunError` that names it."""
    try:
        yield
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RunError(f"{path}: cannot be written ({reason}); mend this and start again") from error


def write_text(path: Path, text: str) -> None:
    """Replace ``path`` by ``text``, so that a crash leaves either the old file or the new one.

    Raises:
        RunError: it cannot be written.
    """
    temporary = path.with_name(f"{path.name}.tmp")
    with writing(path):
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)


def put_in_place(temporary: Path, path: Path) -> None:
    """Replace ``path`` by the file ``temporary``, so that it stays replaced if the power fails.

    Raises:
        OSError: the disk does not take it.
    """
    with temporary.open("rb+") as file:
        os.fsync(file.fileno())
    temporary.replace(path)
    sync_folder(path.parent)


def sync_folder(folder: Path) -> None:
    """Wait until the names in ``folder`` are on the disk; Windows has no such thing.

    Raises:
        OSError: the disk does not take them.
    """
    if sys.platform != "win32":
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
