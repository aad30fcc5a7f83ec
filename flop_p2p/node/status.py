"""The running node answers questions about itself on a unix socket in its state directory.

An answer is one JSON object and the end of the stream. Its keys: ``name``, ``federation``, ``federation_id``,
``revision``, ``role``, ``round`` (counted from 1), ``completed``, ``rounds``, ``phase``, ``waiting_for``,
``train_loss``, ``accuracy``, ``balanced_accuracy``, ``validation_accuracy`` (null while unknown), ``neighbours`` (by
name: the fields of `transport.base.LinkStatus`, ``round`` and ``absences``), ``privacy`` (null without differential
privacy), ``bytes`` (``sent``, ``received``),
``seconds`` by purpose, ``absences``, ``catch_ups``, ``started`` (seconds since 1970), ``finished``.
"""

import asyncio
import contextlib
import json
import os
import socket
import stat
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flop_p2p.errors import NodeError

SOCKET_FILE = "status.sock"
MAX_ADDRESS = 107  # bytes of a unix socket's path
ANSWER_SECONDS = 5.0


class StatusServer:
    """Answers on ``<folder>/status.sock``, which only the node's user may open.

    Args:
        folder: the state directory.
        snapshot: what to answer; called on the event loop for every question.
    """

    def __init__(self, folder: Path, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self._folder = folder
        self._snapshot = snapshot
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Begin to answer; the socket of a dead node is replaced.

        Raises:
            NodeError: another node answers there, or the socket cannot be made.
        """
        self._server = await asyncio.start_unix_server(self._answer, sock=_bind(self._folder))

    async def close(self) -> None:
        """Answer no more and remove the socket."""
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()
            self._server = None
            (self._folder / SOCKET_FILE).unlink(missing_ok=True)

    async def _answer(self, _: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError):  # whoever asked has gone
            writer.write(json.dumps(self._snapshot()).encode() + b"\n")
            await asyncio.wait_for(writer.drain(), ANSWER_SECONDS)
        writer.close()


def ask(folder: Path) -> dict[str, Any]:
    """The state of the node that runs on the state directory ``folder``.

    Raises:
        NodeError: no node runs there, or it does not answer.
    """
    answer = b""
    try:
        with _address(folder) as address, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(address)
            while block := connection.recv(1 << 16):
                answer += block
        content: dict[str, Any] = json.loads(answer)
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NodeError(f"{folder}: no node runs on this state directory; start it with flop-p2p node") from error
    except TimeoutError as error:
        raise NodeError(f"{folder}: the node did not answer within {ANSWER_SECONDS:g} s; try again") from error
    except OSError as error:
        raise NodeError(f"{folder}: the node cannot be asked ({error.strerror})") from error
    except ValueError as error:
        raise NodeError(f"{folder}: the node stopped while it answered; try again") from error
    return content


def _bind(folder: Path) -> socket.socket:
    path = folder / SOCKET_FILE
    server = socket.socket(socket.AF_UNIX)
    try:
        _remove_stale(folder)
        with _address(folder) as address:
            server.bind(address)
        path.chmod(0o600)  # before anybody can connect: that takes the listening of asyncio
    except OSError as error:
        server.close()
        raise NodeError(f"{path}: the socket cannot be made ({error.strerror})") from error
    except NodeError:
        server.close()
        raise
    return server


def _remove_stale(folder: Path) -> None:
    """Remove the socket that a killed node left; raises NodeError if it is alive, or no socket at all."""
    path = folder / SOCKET_FILE
    if not os.path.lexists(path):
        return
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise NodeError(f"{path}: not a socket; move it away")
    try:
        with _address(folder) as address, socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_SECONDS)
            connection.connect(address)
    except ConnectionRefusedError:
        path.unlink()
    else:
        raise NodeError(f"{folder}: another node runs on this state directory; stop it first")


@contextlib.contextmanager
def _address(folder: Path) -> Iterator[str]:
    """An address of the socket that is short enough: Linux finds long ones through the opened folder."""
    path = folder.absolute() / SOCKET_FILE
    if len(os.fsencode(path)) <= MAX_ADDRESS:
        yield str(path)
        return
    if not sys.platform.startswith("linux"):
        raise NodeError(
            f"{path}: longer than the {MAX_ADDRESS} bytes of a socket's path; use a shorter state directory"
        )
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{descriptor}/{SOCKET_FILE}"
    finally:
        os.close(descriptor)
