"""Whatever is done to an egress log afterwards is found, and the line is named where it can be."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file

from flop_p2p.errors import EgressError
from flop_p2p.node import egress_verify
from flop_p2p.node.egress import EgressLog
from flop_p2p.node.egress_verify import verify
from flop_p2p.node.lines import log_files

BODY_BYTES = 4 * 8
SCHEMA = {
    "body": [["conv.weight", [2, 3], "float32"], ["conv.bias", [2], "float32"]],
    "head": ["fc.weight"],
    "sizes": [BODY_BYTES],
}
ROUNDS = 4
NEIGHBOURS = ("south", "west")
LINES = ROUNDS * len(NEIGHBOURS) * 3 + 2


@dataclass(frozen=True)
class History:
    """What a run of north with two neighbours left behind."""

    state: Path
    peers: tuple[Path, ...]

    @property
    def files(self) -> list[Path]:
        return log_files(self.state, "egress")

    def read(self) -> list[list[bytes]]:
        """The lines of each file, newlines included."""
        return [path.read_bytes().splitlines(keepends=True) for path in self.files]

    def write(self, lines: list[list[bytes]]) -> None:
        for path, content in zip(self.files, lines, strict=True):
            path.write_bytes(b"".join(content))

    def forget_checkpoints(self) -> None:
        """Remove what the site itself knows about its log."""
        for path in [*self.state.glob("checkpoint-*"), self.state / "egress.anchor"]:
            path.unlink()


def digest(*words: Any) -> bytes:
    return hashlib.sha256(repr(words).encode()).digest()


def checkpoint(state: Path, number: int, chain: str) -> None:
    metadata = {"progress": json.dumps({"round": number, "chain": chain})}
    save_file({"body": np.zeros(8, np.float32)}, state / f"checkpoint-{number}.safetensors", metadata=metadata)


def run(folder: Path, tell: Callable[[EgressLog, str, str, int, bytes], None]) -> History:
    """Run north; ``tell`` hands a receipt to a neighbour."""
    state = folder / "north"
    state.mkdir()
    (state / "schema.json").write_text(json.dumps(SCHEMA))
    log = EgressLog(state, "north", max_bytes=2500)
    others = {name: EgressLog(folder / name, name, max_bytes=1500) for name in NEIGHBOURS}
    for number in range(ROUNDS):
        for name, other in others.items():
            other.receipt("elsewhere", "body", number, digest("another site", number))
            for kind, size in (("body", BODY_BYTES), ("heartbeat", 60), ("receipt", 70)):
                chain = log.record(name, kind, number, size, digest(name, kind, number))
                if kind != "heartbeat":
                    tell(other, name, kind, number, chain)
        checkpoint(state, number, log.last_chain.hex())
    for name, other in others.items():
        tell(other, name, "goodbye", ROUNDS, log.record(name, "goodbye", ROUNDS, 30, digest(name)))
        other.close()
    checkpoint(state, ROUNDS, log.last_chain.hex())
    log.close()
    return History(state, tuple(folder / name for name in NEIGHBOURS))


def honest(other: EgressLog, name: str, kind: str, number: int, chain: bytes) -> None:
    other.receipt("north", kind, number, chain)


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> History:
    return run(tmp_path_factory.mktemp("original"), honest)


@pytest.fixture
def history(original: History, tmp_path: Path) -> History:
    """A copy to do harm to."""
    shutil.copytree(original.state.parent, tmp_path, dirs_exist_ok=True)
    return History(tmp_path / "north", tuple(tmp_path / name for name in NEIGHBOURS))


def named(path: Path, row: int) -> str:
    return rf"{re.escape(str(path))}, line {row}\b"


def rebuild(history: History, change: Callable[[list[dict[str, Any]]], None]) -> None:
    """Rewrite the whole log with new numbers and hashes after ``change`` of its lines."""
    content = [json.loads(line) for lines in history.read() for line in lines]
    change(content)
    for path in history.files[:-1]:
        path.unlink()
    raw, previous = b"", "0" * 64
    for number, line in enumerate(content, 1):
        encoded = json.dumps(line | {"number": number, "previous": previous}, separators=(",", ":")).encode()
        previous = hashlib.sha256(encoded).hexdigest()
        raw += encoded + b"\n"
    (history.state / "egress.jsonl").write_bytes(raw)


# What holds


def test_a_real_log_passes_with_its_counts(history: History) -> None:
    told: list[tuple[str, str]] = []
    traffic = verify(history.state, history.peers, "north", lambda *each: told.append(each))
    assert len(history.files) > 3
    assert [check for check, _ in told] == ["chain", "schema", "anchor", "receipts", "receipts"]
    results = [result for _, result in told]
    assert results[0].startswith(f"{LINES} lines in {len(history.files)} files")
    assert results[1] == "8 bodies, each the same 2 tensors in 32 bytes; kept back: fc.weight"
    assert "checkpoint-4.safetensors" in results[2]
    assert results[3].startswith(f"{history.peers[0]}: 9 receipts")
    south = traffic["south"]
    assert (south.messages, south.bodies, south.size) == (LINES // 2, ROUNDS, ROUNDS * (BODY_BYTES + 60 + 70) + 30)
    assert south.first < south.last
    assert traffic.keys() == {"south", "west"}


def test_it_passes_without_peers_and_with_one_file_of_receipts(history: History) -> None:
    verify(history.state)
    (history.state.parent / "all.jsonl").write_bytes(
        b"".join(path.read_bytes() for path in log_files(history.peers[0], "receipts"))
    )
    verify(history.state, [history.state.parent / "all.jsonl"])


@pytest.mark.parametrize("name", ["north", None])
def test_a_log_without_a_line_does_not_pass(tmp_path: Path, name: str | None) -> None:
    said: list[str] = []
    for _ in range(2):  # without a log, and with an empty one
        with pytest.raises(EgressError, match=r"no line in egress\.jsonl"):
            verify(tmp_path, name=name, passed=lambda *check: said.extend(check))
        EgressLog(tmp_path, "north").close()
        checkpoint(tmp_path, 1, "0" * 64)
    assert said == []


@pytest.mark.parametrize("name", ["north", None])
def test_a_folder_that_does_not_exist_does_not_pass(tmp_path: Path, name: str | None) -> None:
    with pytest.raises(EgressError, match="absent: there is no such folder"):
        verify(tmp_path / "absent", name=name)


def test_a_log_that_grows_while_it_is_read_is_read_again(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    log = EgressLog(history.state, "north", max_bytes=100)
    read = egress_verify._read_once
    calls = []

    def disturbed(*arguments: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            log.record("south", "heartbeat", 9, 60, digest())  # rotates too
            raise EgressError("half a line")
        return read(*arguments)

    monkeypatch.setattr(egress_verify, "_read_once", disturbed)
    assert verify(history.state, history.peers)["south"].messages == LINES // 2 + 1
    assert len(calls) == 2
    log.close()


# What was done to the log


@settings(max_examples=150)
@given(data=st.data())
def test_a_byte_edited_anywhere_is_found_in_its_line(original: History, data: st.DataObject) -> None:
    path = data.draw(st.sampled_from(original.files))
    before = path.read_bytes()
    position = data.draw(st.integers(0, len(before) - 1))
    byte = data.draw(st.one_of(st.sampled_from(b'0123456789abcdef"\n {}'), st.integers(0, 255)))
    if byte == before[position]:
        byte ^= 1
    row = before[:position].count(b"\n") + 1
    try:
        path.write_bytes(before[:position] + bytes([byte]) + before[position + 1 :])
        with pytest.raises(EgressError, match=named(path, row)):
            verify(original.state)
    finally:
        path.write_bytes(before)


def test_where_nobody_can_tell_which_line_is_false_both_are_named(history: History) -> None:
    history.forget_checkpoints()
    lines = history.read()
    path, row = history.files[-1], len(lines[-1])
    edited = lines[-1][-2].replace(b'"round":3', b'"round":2').replace(b'"round":4', b'"round":2')
    assert edited != lines[-1][-2]
    lines[-1][-2] = edited
    history.write(lines)
    with pytest.raises(EgressError, match=named(path, row - 1) + ", or " + named(path, row) + ": edited"):
        verify(history.state)


@pytest.mark.parametrize("first", range(LINES - 1))
def test_two_lines_swapped_are_found(history: History, first: int) -> None:
    lines = history.read()
    places = [(file, row) for file, content in enumerate(lines) for row in range(len(content))]
    (file, row), (other_file, other_row) = places[first], places[first + 1]
    lines[file][row], lines[other_file][other_row] = lines[other_file][other_row], lines[file][row]
    history.write(lines)
    with pytest.raises(EgressError, match=named(history.files[file], row + 1) + ": number .* out of order"):
        verify(history.state)


def test_a_line_deleted_in_the_middle_is_found(history: History) -> None:
    lines = history.read()
    del lines[1][2]
    history.write(lines)
    with pytest.raises(EgressError, match=named(history.files[1], 3) + ": .* a line is missing"):
        verify(history.state)


@pytest.mark.parametrize("index", [0, 1])
def test_a_whole_file_deleted_is_found(history: History, index: int) -> None:
    after = history.files[index + 1]
    history.files[index].unlink()
    with pytest.raises(EgressError, match=named(after, 1) + ": .* a line is missing"):
        verify(history.state)


def test_an_older_line_inserted_again_is_found(history: History) -> None:
    lines = history.read()
    lines[1].insert(2, lines[0][1])
    history.write(lines)
    with pytest.raises(EgressError, match=named(history.files[1], 3) + ": number 2 where .* inserted"):
        verify(history.state)


def test_a_line_inserted_with_a_right_number_and_hash_is_found(history: History) -> None:
    lines = history.read()
    forged = json.loads(lines[1][2]) | {"round": 99}
    lines[1].insert(2, json.dumps(forged, separators=(",", ":")).encode() + b"\n")
    history.write(lines)
    with pytest.raises(EgressError, match=named(history.files[1], 3) + ": inserted; number 10 comes twice"):
        verify(history.state)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_tail_cut_off_is_found_by_the_checkpoint(history: History, count: int) -> None:
    lines = history.read()
    del lines[-1][-count:]
    history.write(lines)
    with pytest.raises(EgressError, match=r"checkpoint-\d\.safetensors: .* which the log lacks: its end was cut off"):
        verify(history.state)


def test_a_tail_cut_off_after_the_last_checkpoint_is_found_once_the_log_was_closed(history: History) -> None:
    (history.state / "checkpoint-4.safetensors").unlink()
    lines = history.read()
    del lines[-1][-1]
    history.write(lines)
    with pytest.raises(EgressError, match=r"egress\.anchor: .* which the log lacks: its end was cut off"):
        verify(history.state)


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_tail_cut_off_is_found_by_receipts_alone(history: History, count: int) -> None:
    history.forget_checkpoints()
    lines = history.read()
    del lines[-1][-count:]
    history.write(lines)
    verify(history.state)
    with pytest.raises(EgressError, match=r"a line is missing or edited.*receipts\S*\.jsonl, line \d+: \w+ received a"):
        verify(history.state, history.peers)


def test_an_emptied_log_is_found(history: History) -> None:
    for path in history.files[:-1]:
        path.unlink()
    (history.state / "egress.jsonl").write_bytes(b"")
    with pytest.raises(EgressError, match="which the log lacks"):
        verify(history.state, name="north")
    history.forget_checkpoints()
    with pytest.raises(EgressError, match="a line is missing"):
        verify(history.state, history.peers, name="north")


def hide_a_body(content: list[dict[str, Any]]) -> None:
    del content[6]


def hide_a_change(content: list[dict[str, Any]]) -> None:
    content[6]["sha256"] = "0" * 64


@pytest.mark.parametrize("change", [hide_a_body, hide_a_change])
def test_a_rebuilt_log_is_found_by_the_checkpoint(history: History, change: Any) -> None:
    rebuild(history, change)
    with pytest.raises(EgressError, match=r"which the log lacks: .* all of it rebuilt"):
        verify(history.state)


@pytest.mark.parametrize("change", [hide_a_body, hide_a_change])
def test_a_rebuilt_log_is_found_by_receipts_alone(history: History, change: Any) -> None:
    history.forget_checkpoints()
    rebuild(history, change)
    verify(history.state)
    with pytest.raises(EgressError, match=r"rebuilt.*received a body of round 1"):
        verify(history.state, history.peers[:1])


def test_the_line_that_took_the_place_of_another_is_named(history: History) -> None:
    history.forget_checkpoints()
    rebuild(history, hide_a_change)
    with pytest.raises(EgressError, match=named(history.state / "egress.jsonl", 7) + ": edited or rebuilt"):
        verify(history.state, history.peers[:1])


def test_a_log_rebuilt_without_changing_anything_is_the_log(history: History) -> None:
    rebuild(history, lambda content: None)
    verify(history.state, history.peers)


# What receipts and content say


@pytest.mark.parametrize(
    ("falsify", "message"),
    [
        (lambda kind, number: ("goodbye", number), "a body of round 2 for south, but .*received a goodbye of round 2"),
        (lambda kind, number: (kind, number + 1), "a body of round 2 for south, but .*received a body of round 3"),
    ],
)
def test_a_message_that_was_logged_as_something_else_is_found(tmp_path: Path, falsify: Any, message: str) -> None:
    def tell(other: EgressLog, name: str, kind: str, number: int, chain: bytes) -> None:
        if (name, kind, number) == ("south", "body", 2):
            kind, number = falsify(kind, number)
        honest(other, name, kind, number, chain)

    history = run(tmp_path, tell)
    verify(history.state, history.peers[1:])
    with pytest.raises(EgressError, match=named(history.state / "egress-000002.jsonl", 6) + f": {message}"):
        verify(history.state, history.peers)


def test_a_message_that_reached_another_than_logged_is_found(history: History) -> None:
    for path in log_files(history.peers[0], "receipts"):
        path.write_text(path.read_text().replace('"receiver":"south"', '"receiver":"west"'))
    with pytest.raises(EgressError, match=r"for south, but .*: west received"):
        verify(history.state, history.peers)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "head"}, "'head' is not a kind of message that may leave"),
        ({"kind": "heartbeat", "schema": None, "bytes": 4000}, "a heartbeat message has at most 256 bytes"),
        ({"bytes": 36}, "a body has 32 bytes by its schema"),
        ({"schema": "a" * 64}, "a body of schema aaaa"),
        ({"schema": None}, "a body of schema None"),
        ({"sender": "west"}, "a message of west in the log of north"),
        ({"tensor": "fc.weight"}, "unknown key 'tensor'"),
        ({"bytes": "32"}, "'bytes': Input should be a valid integer"),
        ({"sha256": "?"}, "'sha256'"),
        ({"receiver": "south\x1b[2J"}, "'receiver'"),
        ({"kind": "body\n"}, "'kind'"),
        ({"time": "today"}, "'time'"),
    ],
)
def test_a_line_that_should_not_be_is_named(history: History, change: dict[str, Any], message: str) -> None:
    history.forget_checkpoints()
    rebuild(history, lambda content: content[6].update(change))
    with pytest.raises(EgressError, match=named(history.state / "egress.jsonl", 7) + f": .*{message}"):
        verify(history.state)


def test_a_private_name_in_the_body_is_found(history: History) -> None:
    (history.state / "schema.json").write_text(json.dumps(SCHEMA | {"head": ["conv.bias"]}))
    with pytest.raises(EgressError, match=r"conv\.bias: shared and private at once"):
        verify(history.state)


def test_bodies_without_a_schema_are_found(history: History) -> None:
    (history.state / "schema.json").unlink()
    with pytest.raises(
        EgressError, match=named(history.state / "egress-000001.jsonl", 1) + r": there is no schema\.json"
    ):
        verify(history.state)


def test_the_log_of_another_site_is_found(history: History) -> None:
    with pytest.raises(EgressError, match="a message of north in the log of south"):
        verify(history.state, name="south")


def test_what_cannot_be_read_is_named(history: History) -> None:
    with pytest.raises(EgressError, match=r"no receipts\.jsonl here"):
        verify(history.state, [history.state])
    with pytest.raises(EgressError, match=r"absent\.jsonl: cannot be read"):
        verify(history.state, [history.state / "absent.jsonl"])
    with (history.peers[0] / "receipts.jsonl").open("ab") as file:
        file.write(b'{"half')
    verify(history.state, history.peers)
    with (history.peers[0] / "receipts.jsonl").open("ab") as file:
        file.write(b'"}\n')
    with pytest.raises(EgressError, match=r"receipts\.jsonl, line \d+: not a line of the receipts"):
        verify(history.state, history.peers)
    (history.state / "egress.anchor").write_text("00")
    with pytest.raises(EgressError, match=r"egress\.anchor: cannot be read or is damaged"):
        verify(history.state)
    (history.state / "checkpoint-9.safetensors").write_bytes(b"damaged")
    with pytest.raises(EgressError, match=r"checkpoint-9\.safetensors: cannot be read or is damaged"):
        verify(history.state)


@pytest.mark.parametrize("line", [b"[" * 3000, b"[" * 9000, b"\0" * 50, b"null", b'{"number":' + b"9" * 3000 + b"}"])
def test_hostile_lines_are_an_error_of_ours(history: History, line: bytes) -> None:
    path = history.files[1]
    path.write_bytes(line + b"\n" + path.read_bytes())
    with pytest.raises(EgressError, match=named(path, 1)):
        verify(history.state)
