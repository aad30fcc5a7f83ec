"""Federation files on disk: written whole or not at all, and the revisions that a site has adopted."""

import contextlib
import errno
import os
import secrets
from pathlib import Path

import tomli_w

from flop_p2p.config import FederationSettings, load_federation
from flop_p2p.errors import FederationError

HEADER = """\
# The common file of a federation: the same at every site, and without secrets. `flop-p2p federation` makes and
# changes it; a change by hand gives it another id, and sites with different ids refuse each other.

"""
ADOPTED = "revisions"  # folder in a site's state directory


def federation_toml(federation: FederationSettings) -> str:
    """A federation as the text of its file; every setting is written out, defaults too."""
    return HEADER + tomli_w.dumps(federation.model_dump(mode="json", exclude_none=True))


def write_federation(path: Path, federation: FederationSettings, replace: bool = False) -> None:
    """Write a federation file, whole or not at all: a new one, or one that takes the place of ``path``.

    Raises:
        FederationError: it exists and is not to be replaced, or cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:  # exclusive: follows no link
            file.write(federation_toml(federation))
            file.flush()
            os.fsync(file.fileno())
        if replace:
            temporary.replace(path)
        else:
            _place(temporary, path)
    except FileExistsError as error:
        raise FederationError(f"{path}: exists already; give another name, or remove it first") from error
    except OSError as error:
        raise FederationError(f"{path}: cannot be written ({error.strerror})") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _place(temporary: Path, path: Path) -> None:
    """Give a new file its name, never over another file."""
    try:
        os.link(temporary, path)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS):
            raise
        if os.path.lexists(path):  # no hard links there, as on many a memory stick
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), str(path)) from error
        temporary.replace(path)


def adopted_revisions(state: Path) -> list[FederationSettings]:
    """The revisions that a site has adopted, ascending; ``state`` is its state directory.

    Raises:
        ConfigError: one of them cannot be read.
    """
    revisions = [load_federation(path) for path in (state / ADOPTED).glob("*.toml")]
    return sorted(revisions, key=lambda revision: revision.revision)


def store_revision(state: Path, revision: FederationSettings) -> Path:
    """Put a checked revision where the node looks for it, each round and at its start; returns the file.

    Raises:
        FederationError: it cannot be written.
    """
    folder = state / ADOPTED
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
        folder.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise FederationError(f"{folder}: cannot be made ({error.strerror})") from error
    path = folder / f"{revision.revision}.toml"
    write_federation(path, revision, replace=True)
    return path
