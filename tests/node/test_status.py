"""Questions to a running node: a socket of its own in the state directory, and a lock on that directory."""

import asyncio
import errno
import os
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flop_p2p.errors import NodeError
from flop_p2p.node import status
from flop_p2p.node.lock import StateLock
from flop_p2p.node.status import SOCKET_FILE, StatusServer, ask

ANSWER = {"name": "north", "round": 3, "neighbours": {"süd": {"state": "connected"}}}
DEEP = "/".join(["a-folder-of-some-length"] * 8)  # too long for the address of a socket


async def answers(folder: Path) -> list[dict[str, object]]:
    """Two answers of a server on ``folder``."""
    server = StatusServer(folder, lambda: ANSWER)
    await server.start()
    try:
        return [await asyncio.to_thread(ask, folder) for _ in range(2)]
    finally:
        await server.close()


def leave_stale_socket(folder: Path) -> None:
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(folder / SOCKET_FILE))


@contextmanager
def listening(folder: Path) -> Iterator[socket.socket]:
    """A socket that accepts nobody but listens."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / SOCKET_FILE))
        server.listen()
        yield server


@pytest.mark.parametrize("deeper", ["", DEEP])
def test_a_node_answers_until_it_is_closed(tmp_path: Path, deeper: str) -> None:
    folder = tmp_path / deeper
    folder.mkdir(parents=True, exist_ok=True)
    assert asyncio.run(answers(folder)) == [ANSWER, ANSWER]
    assert not (folder / SOCKET_FILE).exists()
    with pytest.raises(NodeError, match="no node runs on this state directory"):
        ask(folder)


def test_a_relative_state_directory_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert asyncio.run(answers(Path())) == [ANSWER, ANSWER]


def test_only_the_user_of_the_node_may_ask(tmp_path: Path) -> None:
    async def mode() -> int:
        server = StatusServer(tmp_path, lambda: ANSWER)
        await server.start()
        try:
            return stat.S_IMODE((tmp_path / SOCKET_FILE).stat().st_mode)
        finally:
            await server.close()

    before = os.umask(0)
    try:
        assert asyncio.run(mode()) == 0o600
    finally:
        os.umask(before)


def test_the_socket_of_a_dead_node_is_replaced(tmp_path: Path) -> None:
    leave_stale_socket(tmp_path)
    with pytest.raises(NodeError, match="no node runs on this state directory"):
        ask(tmp_path)
    assert asyncio.run(answers(tmp_path)) == [ANSWER, ANSWER]


def test_the_socket_of_a_living_node_is_not(tmp_path: Path) -> None:
    with listening(tmp_path), pytest.raises(NodeError, match="another node runs on this state directory"):
        asyncio.run(answers(tmp_path))
    assert (tmp_path / SOCKET_FILE).exists()


def test_what_is_no_socket_is_not_removed(tmp_path: Path) -> None:
    (tmp_path / SOCKET_FILE).write_text("mine")
    with pytest.raises(NodeError, match=r"status\.sock: not a socket"):
        asyncio.run(answers(tmp_path))
    assert (tmp_path / SOCKET_FILE).read_text() == "mine"


def test_a_node_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "ANSWER_SECONDS", 0.05)
    with listening(tmp_path), pytest.raises(NodeError, match=r"did not answer within 0\.05 s"):
        ask(tmp_path)


def test_a_node_that_stops_while_it_answers_is_named(tmp_path: Path) -> None:
    async def half() -> None:
        async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b'{"name": "no')
            writer.close()

        server = await asyncio.start_unix_server(answer, tmp_path / SOCKET_FILE)
        async with server:
            await asyncio.to_thread(ask, tmp_path)

    with pytest.raises(NodeError, match="stopped while it answered"):
        asyncio.run(half())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match="no node runs"):
        ask(tmp_path / "absent" / DEEP)
    with pytest.raises(NodeError, match="the socket cannot be made"):
        asyncio.run(answers(tmp_path / "absent"))


# The lock


def test_one_state_directory_has_one_node(tmp_path: Path) -> None:
    with StateLock(tmp_path / "state"):
        for _ in range(2):
            with pytest.raises(NodeError, match=rf"another node runs .*\(process {os.getpid()}\); stop it first"):
                StateLock(tmp_path / "state")
    with StateLock(tmp_path / "state"):
        pass


def test_the_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from flop_p2p.node.lock import StateLock\n"
        "lock = StateLock(Path(sys.argv[1])); print('held', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"held\n"
        with pytest.raises(NodeError, match=rf"\(process {process.pid}\)"):
            StateLock(tmp_path)
        process.kill()
    StateLock(tmp_path).release()


def test_a_folder_that_cannot_be_locked_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NodeError, match="lock: cannot be written"):
        StateLock(tmp_path / "file")


def test_a_full_disk_is_named_and_the_lock_is_free_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "write", full)
        with pytest.raises(NodeError, match=r"lock: cannot be written \(No space left on device\)"):
            StateLock(tmp_path)
    StateLock(tmp_path).release()
