"""Writing the egress log: chained over restarts and rotations, healed after a crash, and no log means no sending."""

import errno
import hashlib
import json
import logging
import os
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from flop_p2p.errors import EgressError
from flop_p2p.node.egress import EgressLog
from flop_p2p.node.egress_line import MAX_PAYLOAD
from flop_p2p.node.egress_verify import verify
from flop_p2p.node.lines import log_files
from flop_p2p.transport.base import Egress
from flop_p2p.wire import encode
from flop_p2p.wire.messages import (
    KINDS,
    Credit,
    Decline,
    Goodbye,
    Heartbeat,
    Participants,
    Present,
    Ready,
    Receipt,
    Refuse,
    Silence,
    Unknown,
)
from flop_p2p.wire.participants import MAX_LIST_BYTES

DIGEST = hashlib.sha256(b"body").digest()
BODY_BYTES = 4 * 8
SCHEMA = {
    "body": [["conv.weight", [2, 3], "float32"], ["conv.bias", [2], "float32"]],
    "head": ["fc.weight"],
    "sizes": [BODY_BYTES],
}


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """A state directory that says what a body holds."""
    (tmp_path / "schema.json").write_text(json.dumps(SCHEMA))
    return tmp_path


@pytest.fixture
def log(state: Path) -> Iterator[EgressLog]:
    log = EgressLog(state, "north")
    yield log
    log.close()


def lines(state: Path, stem: str = "egress") -> list[dict[str, Any]]:
    return [json.loads(line) for path in log_files(state, stem) for line in path.read_bytes().splitlines()]


def heartbeat(log: Egress, number: int = 0) -> bytes:
    return log.record("south", "heartbeat", number, 60, DIGEST)


def test_a_line_holds_what_was_agreed_and_its_hash_is_the_chain(log: EgressLog, state: Path) -> None:
    first = log.record("south", "body", 3, BODY_BYTES, DIGEST)
    second = log.record("östlich", "goodbye", 4, 17, DIGEST)
    body, goodbye = lines(state)
    schema_hash = hashlib.sha256(json.dumps(SCHEMA["body"], separators=(",", ":")).encode()).hexdigest()
    assert body.pop("time").endswith("+00:00")
    assert body == {
        "number": 1,
        "sender": "north",
        "receiver": "south",
        "round": 3,
        "kind": "body",
        "schema": schema_hash,
        "bytes": BODY_BYTES,
        "sha256": DIGEST.hex(),
        "previous": "0" * 64,
    }
    assert (goodbye["number"], goodbye["receiver"], goodbye["schema"]) == (2, "östlich", None)
    raw = (state / "egress.jsonl").read_bytes().splitlines()
    assert [hashlib.sha256(line).digest() for line in raw] == [first, second]
    assert goodbye["previous"] == first.hex()
    assert log.last_chain == second
    assert stat.S_IMODE((state / "egress.jsonl").stat().st_mode) == 0o600


def test_the_chain_goes_on_over_restarts_and_rotations(state: Path) -> None:
    chain = bytes(32)
    for start in range(3):
        log = EgressLog(state, "north", max_bytes=1000)
        assert log.last_chain == chain
        for number in range(5):
            chain = heartbeat(log, 5 * start + number)
        log.close()
    written = lines(state)
    assert [line["number"] for line in written] == list(range(1, 16))
    assert [line["round"] for line in written] == list(range(15))
    names = [path.name for path in log_files(state, "egress")]
    assert names[:2] == ["egress-000001.jsonl", "egress-000002.jsonl"]
    assert names[-1] == "egress.jsonl"
    assert all(path.stat().st_size <= 1000 for path in log_files(state, "egress"))
    assert verify(state)["south"].messages == 15


def test_a_crash_between_rotation_and_the_next_line_loses_nothing(state: Path) -> None:
    log = EgressLog(state, "north")
    chain = heartbeat(log)
    log.close()
    (state / "egress.jsonl").rename(state / "egress-000001.jsonl")
    log = EgressLog(state, "north")
    assert log.last_chain == chain
    heartbeat(log)
    log.close()
    assert verify(state)["south"].messages == 2


@pytest.mark.parametrize("torn", [b'{"number":3,"ti', b"\0" * 100_000, b"{}"])
def test_half_a_line_is_moved_away_and_named(state: Path, torn: bytes, caplog: pytest.LogCaptureFixture) -> None:
    log = EgressLog(state, "north")
    chain = [heartbeat(log), heartbeat(log)][-1]
    log.close()
    (state / "egress.torn-1").write_bytes(b"of an earlier crash")
    with (state / "egress.jsonl").open("ab") as file:
        file.write(torn)
    with pytest.raises(EgressError, match=r"egress\.jsonl, line 3"):
        verify(state)
    with caplog.at_level(logging.WARNING):
        log = EgressLog(state, "north")
    assert log.last_chain == chain
    heartbeat(log)
    log.close()
    assert verify(state)["south"].messages == 3
    assert (state / "egress.torn-2").read_bytes() == torn
    assert f"{len(torn)} bytes are kept in egress.torn-2" in caplog.text


def test_only_what_needs_no_receipt_may_be_lost_with_the_power(log: EgressLog, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    heartbeat(log)
    log.record("south", "credit", 0, 30, DIGEST)
    assert synced == []
    log.last_chain  # noqa: B018 - a checkpoint must not know a line that could be lost
    assert len(synced) == 1
    log.last_chain  # noqa: B018
    assert len(synced) == 1
    for kind, size in (("hello", 30_000), ("receipt", 70), ("body", BODY_BYTES), ("goodbye", 30)):
        log.record("south", kind, 0, size, DIGEST)
    assert len(synced) == 5


def test_a_full_disk_stops_sending_until_there_is_room(
    state: Path, log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    chain = heartbeat(log)
    write = os.write

    def full(file: int, data: bytes) -> int:
        return write(file, data[:20])

    monkeypatch.setattr(os, "write", full)
    for _ in range(2):
        with pytest.raises(EgressError, match=r"egress\.jsonl: cannot be written .*nothing is sent"):
            heartbeat(log)
    monkeypatch.undo()
    heartbeat(log)
    assert lines(state)[-1]["previous"] == chain.hex()
    assert verify(state)["south"].messages == 2
    assert (state / "egress.torn-1").stat().st_size == (state / "egress.torn-2").stat().st_size == 20


def test_a_line_that_may_not_be_on_the_disk_stays_but_nothing_is_sent(
    state: Path, log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(file: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(EgressError, match="Input/output error"):
        log.record("south", "body", 0, BODY_BYTES, DIGEST)
    monkeypatch.undo()
    for attempt in (lambda: heartbeat(log), log.sync):  # the system may have dropped the line and call the rest synced
        with pytest.raises(EgressError, match="start the node again"):
            attempt()
    log.close()
    again = EgressLog(state, "north")
    heartbeat(again)
    again.close()
    assert [line["kind"] for line in lines(state)] == ["body", "heartbeat"]
    assert verify(state)["south"].messages == 2


def test_lines_that_do_not_wait_for_the_disk_are_synced_together(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced: list[int] = []
    monkeypatch.setattr(os, "fsync", synced.append)
    for _ in range(2):
        chain = log.record("south", "body", 0, BODY_BYTES, DIGEST, durable=False)
    assert synced == []
    assert log.sync() == chain
    assert len(synced) == 1


def test_while_the_disk_is_slow_lines_are_written_and_wait_for_the_next_sync(
    log: EgressLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, may_end = threading.Event(), threading.Event()

    def slow(_: int) -> None:
        begun.set()
        assert may_end.wait(10)

    first = log.record("south", "body", 0, BODY_BYTES, DIGEST, durable=False)
    monkeypatch.setattr(os, "fsync", slow)
    with ThreadPoolExecutor(2) as threads:
        syncing = threads.submit(log.sync)
        assert begun.wait(10)
        second = log.record("south", "body", 0, BODY_BYTES, DIGEST, durable=False)
        chain = threads.submit(lambda: log.last_chain)
        assert not chain.done()
        may_end.set()
        assert (syncing.result(), chain.result()) == (first, second)


def test_a_schema_that_allows_more_than_a_body_is_refused(state: Path) -> None:
    (state / "schema.json").write_text(json.dumps({**SCHEMA, "sizes": [BODY_BYTES, 200_000]}))
    with pytest.raises(EgressError, match="altered"):
        EgressLog(state, "north")


def test_a_sync_that_fails_is_an_egress_error(log: EgressLog, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    log.record("south", "body", 0, BODY_BYTES, DIGEST, durable=False)
    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(EgressError, match="Input/output error"):
        log.sync()
    monkeypatch.undo()
    for again in (log.sync, lambda: log.last_chain):  # never told that the line is safe
        with pytest.raises(EgressError, match="start the node again"):
            again()


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes().splitlines(keepends=True)[0])
    copy.replace(path)


def cut(path: Path) -> None:
    os.truncate(path, len(path.read_bytes().splitlines(keepends=True)[0]))


def append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + path.read_bytes().splitlines(keepends=True)[0])


@pytest.mark.parametrize("change", [delete, replace, cut, append])
def test_nothing_is_sent_once_another_program_touched_the_log(state: Path, log: EgressLog, change: Any) -> None:
    for number in range(3):
        heartbeat(log, number)
    change(state / "egress.jsonl")
    with pytest.raises(EgressError, match=r"another program has replaced or changed it|No such file"):
        heartbeat(log)
    for _ in range(2):
        with pytest.raises(EgressError, match="no longer ends with what was written; nothing is sent"):
            heartbeat(log)


@pytest.mark.parametrize(
    ("kind", "size", "message"),
    [
        ("body", BODY_BYTES + 4, "a body has 32 bytes by its schema, this one 36"),
        ("body", 0, "a body has 32 bytes"),
        ("heartbeat", 257, "a heartbeat message has at most 256 bytes, this one 257"),
        ("hello", 2 << 20, "a hello message has at most"),
        ("head", 16, "'head' is not a kind of message that may leave"),
    ],
)
def test_messages_of_another_kind_or_size_do_not_leave(
    state: Path, log: EgressLog, kind: str, size: int, message: str
) -> None:
    with pytest.raises(EgressError, match=message):
        log.record("south", kind, 0, size, DIGEST)
    assert lines(state) == []


def test_without_a_schema_no_body_leaves(tmp_path: Path) -> None:
    log = EgressLog(tmp_path / "new" / "state", "north")
    heartbeat(log)
    with pytest.raises(EgressError, match=r"no schema\.json"):
        log.record("south", "body", 0, BODY_BYTES, DIGEST)
    log.close()


def test_real_messages_fit_their_limits() -> None:
    largest = [
        Ready(session=bytes(8)),
        Refuse(reason="\U0001f3e5" * 1000),
        Unknown(),
        Heartbeat(round=2**31, sent=1.8e9, echo=1.8e9),
        Credit(chunks=1024),
        Receipt(round=2**31, chain=DIGEST),
        Goodbye(last_round=2**31, finished=True),
        Silence(round=2**31),
        Present(round=2**31, key=DIGEST, signature=2 * DIGEST),
        Participants(round=2**31, participants=bytes(MAX_LIST_BYTES)),
        Decline(round=2**31, reason="\U0001f3e5" * 1000),
    ]
    assert {message.kind for message in largest} | {"hello", "welcome", "body"} == set(KINDS)
    for message in largest:
        assert len(encode(message)) <= MAX_PAYLOAD[message.kind]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"\n", "egress.jsonl, last line: not a line of the egress log"),
        (b'{"number": 1}\n', "missing key 'time'"),
        (None, "the log of south, but this site is north"),
    ],
)
def test_a_log_that_is_not_ours_is_not_continued(state: Path, content: bytes | None, message: str) -> None:
    if content is None:
        other = EgressLog(state, "south")
        other.record("north", "heartbeat", 0, 60, DIGEST)
        other.close()
    else:
        (state / "egress.jsonl").write_bytes(content)
    with pytest.raises(EgressError, match=message):
        EgressLog(state, "north")


@pytest.mark.parametrize("text", ["{", '{"body": [["a", [1], "float32"]]}', '{"body": [["a", "b"]], "head": []}'])
def test_a_damaged_schema_is_named(state: Path, text: str) -> None:
    (state / "schema.json").write_text(text)
    with pytest.raises(EgressError, match=r"schema\.json: damaged"):
        EgressLog(state, "north")


def test_a_state_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(EgressError, match="cannot be "):
        EgressLog(tmp_path / "file", "north")


def test_receipts_are_kept_and_rotated(state: Path) -> None:
    log = EgressLog(state, "north", max_bytes=500)
    for number in range(4):
        log.receipt("south", "body", number, DIGEST)
    log.close()
    assert len(log_files(state, "receipts")) > 1
    kept = lines(state, "receipts")
    assert [line["round"] for line in kept] == [0, 1, 2, 3]
    assert kept[0].keys() == {"time", "sender", "receiver", "round", "kind", "chain"}
    assert (kept[0]["sender"], kept[0]["receiver"], kept[0]["chain"]) == ("south", "north", DIGEST.hex())


def test_receipts_that_cannot_be_kept_are_told_once(
    state: Path, log: EgressLog, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(file: int, data: bytes) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    for _ in range(3):
        log.receipt("south", "body", 0, DIGEST)
    assert caplog.text.count("receipts cannot be written (No space left on device)") == 1
    monkeypatch.undo()
    log.receipt("south", "body", 7, DIGEST)
    assert [line["round"] for line in lines(state, "receipts")] == [7]


def test_threads_do_not_tear_the_chain(state: Path, log: EgressLog) -> None:
    def work() -> None:
        for number in range(100):
            heartbeat(log, number)
            log.last_chain  # noqa: B018

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert verify(state)["south"].messages == 300
