import random
import tracemalloc
from collections.abc import Callable
from typing import Any

import msgpack
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from flop_p2p.errors import WireError
from flop_p2p.wire import (
    KINDS,
    MAX_CONTROL_BYTES,
    AnyMessage,
    Credit,
    Decline,
    Descriptor,
    FrameHeader,
    Goodbye,
    Heartbeat,
    Hello,
    Message,
    Participants,
    Present,
    Ready,
    Receipt,
    Refuse,
    Silence,
    Unknown,
    Welcome,
    encode,
    envelope,
    open_envelope,
)
from flop_p2p.wire.codec import CLASSES

CHAIN = bytes(range(32))
DECODERS: dict[str, Callable[[bytes], object]] = {
    "envelope": open_envelope,
    "payload": lambda data: open_envelope(envelope(data, CHAIN)),
    "header": FrameHeader.decode,
    "descriptor": Descriptor.decode,
}

rounds = st.integers(-1, 2**31)
times = st.floats(allow_nan=False, allow_infinity=False)
digests, sessions = st.binary(min_size=32, max_size=32), st.binary(min_size=8, max_size=8)
counts = st.integers(1, 1 << 20)
greeting = {
    "name": st.text("abc-é北 ", max_size=20).map(lambda text: f"S{text}1"),
    "protocol": st.integers(0, 2**32),
    "federation": st.text(max_size=100),
    "schema_hash": digests,
    "body_hash": digests,
    "round": rounds,
    "have": rounds,
    "finished": st.booleans(),
    "probe": st.booleans(),
    "time": times,
    "public_key": digests,
    "bulk_id": st.binary(max_size=32),
    "session": sessions,
}
messages = st.one_of(
    st.builds(Hello, **greeting),
    st.builds(Welcome, **greeting),
    st.builds(Ready, session=sessions),
    st.builds(Refuse, reason=st.text(max_size=50)),
    st.builds(Unknown),
    st.builds(Heartbeat, round=rounds, sent=times, echo=times),
    st.builds(Credit, chunks=st.integers(1, 1024)),
    st.builds(Receipt, round=rounds, chain=digests),
    st.builds(Goodbye, last_round=rounds, finished=st.booleans()),
    st.builds(Silence, round=rounds),
    st.builds(Present, round=rounds, key=digests, signature=st.binary(min_size=64, max_size=64)),
    st.builds(Participants, round=rounds, participants=st.binary(max_size=3000)),
    st.builds(Decline, round=rounds, reason=st.text(max_size=50)),
)
headers = st.builds(
    FrameHeader, session=sessions, counter=st.integers(0, 1000), round=rounds, index=st.just(1), count=counts
)
descriptors = st.builds(
    Descriptor,
    round=rounds,
    schema_hash=digests,
    size=st.integers(4, 2**40),
    chunk_bytes=st.integers(1, 1 << 20).map(lambda words: 4 * words),
    chunks=counts,
    sha256=digests,
    chain=digests,
)
extensions = st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=20)) | st.builds(
    msgpack.Timestamp, st.integers(0, 2**33), st.integers(0, 10**9 - 1)
)
scalars = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | st.floats() | st.text(max_size=40) | extensions
) | st.binary(max_size=40)
values = st.recursive(
    scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.text(max_size=5) | st.integers(0, 9) | st.binary(max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)
# the first byte of every msgpack type, with lengths that promise more than there is
heads = st.sampled_from([bytes([first]) for first in (*range(0x80, 0x85), *range(0x90, 0x95), *range(0xA0, 0xA4))]) | (
    st.builds(lambda first, rest: bytes([first]) + rest, st.integers(0xC0, 0xDF), st.binary(max_size=9))
)


def only_wire_error(data: bytes, decoders: dict[str, Callable[[bytes], object]] = DECODERS) -> list[str]:
    """The refusals of all decoders, each one printable line; anything but a WireError gets through to pytest."""
    refusals = []
    for decode in decoders.values():
        try:
            decode(data)
        except WireError as error:
            refusals.append(str(error))
    assert all(line.isprintable() and line.isascii() and len(line) < 250 for line in refusals), refusals
    return refusals


def payload_of(message: Message, **changes: Any) -> bytes:
    return bytes(msgpack.packb(message.model_dump() | changes))


def refusal(payload: bytes) -> str:
    with pytest.raises(WireError) as caught:
        open_envelope(envelope(payload, CHAIN))
    return str(caught.value)


HEARTBEAT = Heartbeat(round=3, sent=1.5, echo=0.0)


@given(messages, digests)
def test_every_message_survives_the_way(message: AnyMessage, chain: bytes) -> None:
    assert open_envelope(envelope(encode(message), chain)) == (message, chain)
    assert open_envelope(memoryview(envelope(encode(message), chain))) == (message, chain)


def test_the_list_of_messages_is_closed_and_the_log_knows_it() -> None:
    assert (*CLASSES, "body") == KINDS


@settings(max_examples=500)
@given(st.binary(max_size=4096))
def test_no_bytes_raise_anything_but_a_wire_error(data: bytes) -> None:
    assert len(only_wire_error(data)) == len(DECODERS)  # an example that is valid by chance is not to be expected


def test_no_random_bytes_raise_anything_but_a_wire_error() -> None:
    generator = random.Random(7)
    for _ in range(4000):
        only_wire_error(generator.randbytes(generator.choice((1, 3, 10, 60, 170, 600, 4096))))


@settings(max_examples=400)
@given(values)
def test_no_well_formed_msgpack_raises_anything_but_a_wire_error(value: object) -> None:
    only_wire_error(msgpack.packb(value))


@settings(max_examples=400)
@given(st.lists(heads | st.binary(max_size=6), max_size=60).map(b"".join))
def test_no_pieces_of_msgpack_raise_anything_but_a_wire_error(data: bytes) -> None:
    only_wire_error(data[:4096])


@settings(max_examples=400)
@given(st.data())
def test_no_altered_message_raises_anything_but_a_wire_error(data: st.DataObject) -> None:
    message = data.draw(messages | headers | descriptors)
    altered = bytearray(encode(message))
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(st.integers(0, len(altered)))
        match data.draw(st.sampled_from(("cut", "extend", "flip", "insert", "repeat"))):
            case "cut":
                del altered[place:]
            case "extend":
                altered += data.draw(st.binary(min_size=1, max_size=8))
            case "flip" if altered:
                altered[place % len(altered)] ^= 1 << data.draw(st.integers(0, 7))
            case "insert":
                altered[place:place] = data.draw(heads)
            case _:
                altered += altered[place:]
    only_wire_error(bytes(altered))
    only_wire_error(envelope(bytes(altered), CHAIN)[data.draw(st.integers(0, 5)) :])


@settings(max_examples=300)
@given(messages | headers | descriptors, values, st.data())
def test_no_value_in_a_field_raises_anything_but_a_wire_error(
    message: Message, value: Any, data: st.DataObject
) -> None:
    fields = message.model_dump()
    field = data.draw(st.sampled_from(sorted(fields)) | st.text(max_size=100))
    only_wire_error(msgpack.packb(fields | {field: value}))
    fields.pop(field, None)
    only_wire_error(msgpack.packb(fields))


@settings(max_examples=200)
@given(values, values, values)
@example(True, CHAIN, b"")
@example(1.0, CHAIN, b"")
@example([[]], {}, [])
def test_no_envelope_raises_anything_but_a_wire_error(version: Any, chain: Any, payload: Any) -> None:
    for outer in ([version, chain, payload], [1, chain, payload], [1, CHAIN, payload], [1, chain, encode(HEARTBEAT)]):
        only_wire_error(msgpack.packb(outer))


@pytest.mark.parametrize("kind", ["dd", "df", "db", "c6", "c9", "dc", "de", "da", "c5", "c8"])
@pytest.mark.parametrize("decode", [open_envelope, FrameHeader.decode, Descriptor.decode])
@pytest.mark.parametrize("wrapped", [False, True])
def test_nothing_is_allocated_for_a_declared_length(
    kind: str, decode: Callable[[bytes], object], wrapped: bool
) -> None:
    data = bytes.fromhex(kind) + b"\x7f\xff\xff\xff" + bytes(20)
    data = envelope(data, CHAIN) if wrapped else data
    only_wire_error(data)  # whatever is imported or cached the first time
    tracemalloc.start()
    try:
        with pytest.raises(WireError):
            decode(data)
        assert tracemalloc.get_traced_memory()[1] < 20_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("level", [b"\x91", b"\x81\xa1a", b"\x81", b"\x93\x01\x01"])
@pytest.mark.parametrize("depth", [3, 500, 1023, 1024, 4000, 300_000])
def test_nesting_of_any_depth_is_refused(level: bytes, depth: int) -> None:
    assert len(only_wire_error((level * depth + b"\x01")[: MAX_CONTROL_BYTES // 2])) == len(DECODERS)


def test_a_tree_of_small_maps_is_refused_at_its_first_branch() -> None:
    inner = msgpack.packb({letter: {} for letter in "abcdefghijklmnop"})
    outer = b"\xdf\x00\x00\x00\x10" + b"".join(msgpack.packb(letter) + inner for letter in "abcdefghijklmnop")
    assert "list or a map" in refusal(outer)


@pytest.mark.parametrize(
    ("payload", "words"),
    [
        (b"\x82" + msgpack.packb("kind") + msgpack.packb("unknown") + msgpack.packb("kind") + b"\xa1x", "twice"),
        (b"\x81\xc4\x04kind" + msgpack.packb("unknown"), "not text"),
        (b"\x81\x01\x02", "int"),
        (msgpack.packb({"kind": msgpack.ExtType(5, b"")}), "extension type 5"),
        (msgpack.packb({"kind": msgpack.ExtType(5, b"abc")}), "msgpack"),
        (msgpack.packb({"kind": "heartbeat", "round": 1, "sent": msgpack.Timestamp(3), "echo": 0.0}), "msgpack"),
        (msgpack.packb(["kind", "unknown"]), "msgpack"),
        (b"", "msgpack"),
        (encode(HEARTBEAT) + b"\x00", "msgpack"),
        (encode(HEARTBEAT)[:-1], "msgpack"),
        (msgpack.packb({"kind": "bodies"}), "unknown kind 'bodies'"),
        (msgpack.packb({"kind": "body"}), "unknown kind 'body'"),
        (msgpack.packb({"kind": 3}), "unknown kind 3"),
        (msgpack.packb({}), "unknown kind None"),
        (payload_of(HEARTBEAT, sent=float("nan")), "'sent'"),
        (payload_of(HEARTBEAT, sent=float("inf")), "'sent'"),
        (payload_of(HEARTBEAT, echo=float("-inf")), "'echo'"),
        (payload_of(HEARTBEAT, sent="1.5"), "'sent'"),
        (payload_of(HEARTBEAT, round=True), "'round'"),
        (payload_of(HEARTBEAT, round=2.0), "'round'"),
        (payload_of(HEARTBEAT, round=-2), "'round'"),
        (payload_of(HEARTBEAT, round=2**31 + 1), "'round'"),
        (payload_of(HEARTBEAT, extra=1), "'extra'"),
        (msgpack.packb({"kind": "heartbeat", "round": 1, "sent": 0.0}), "'echo'"),
        (payload_of(Credit(chunks=1), chunks=1025), "'chunks'"),
        (payload_of(Ready(session=bytes(8)), session=bytes(9)), "'session'"),
        (payload_of(Ready(session=bytes(8)), session="12345678"), "'session'"),
        (b"\x82" + msgpack.packb("kind") + msgpack.packb("refuse") + b"\xa6reason\xa3\xff\xfe\xfd", "msgpack"),
        (b"\x81\xa2\xc3\x28\x01", "msgpack"),
        (msgpack.packb({f"{number}": number for number in range(33)}), "msgpack"),
    ],
)
def test_a_refusal_names_what_is_wrong(payload: bytes, words: str) -> None:
    assert words in refusal(payload)
    assert len(only_wire_error(payload)) == len(DECODERS)


HELLO = Hello(
    **{"name": "north", "protocol": 1, "federation": "{}", "bulk_id": b"", "session": bytes(8)},
    **{"schema_hash": CHAIN, "body_hash": CHAIN, "public_key": CHAIN},
    **{"round": 0, "have": -1, "finished": False, "probe": False, "time": 0.0},
)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("name", name) for name in ("", " north", "north ", "no\nrth", "no\x1b[2Jrth", "x" * 65, 3)),
        *(("time", time) for time in (float("nan"), float("inf"), None)),
        ("public_key", bytes(31)),
        ("bulk_id", bytes(33)),
        ("federation", b"{}"),
        ("finished", 1),
    ],
)
def test_a_greeting_with_an_impossible_field_is_refused(field: str, value: object) -> None:
    assert f"'{field}'" in refusal(payload_of(HELLO, **{field: value}))
    assert open_envelope(envelope(encode(HELLO), CHAIN)) == (HELLO, CHAIN)


def test_a_hostile_text_stays_one_short_printable_line() -> None:
    text = "\x1b[31m\n‮" + "A" * 900_000
    assert "\\x1b" in refusal(msgpack.packb({"kind": text}))
    only_wire_error(msgpack.packb({"kind": text}))
    only_wire_error(payload_of(HEARTBEAT, **{text: 1}))
    message, _ = open_envelope(envelope(msgpack.packb({"kind": "refuse", "reason": text}), CHAIN))
    assert isinstance(message, Refuse)
    assert message.reason.startswith("?[31m??AAA")
    assert len(message.reason) == 1000


@pytest.mark.parametrize("version", [0, 2, 2**40, -1])
def test_another_version_is_named(version: int) -> None:
    with pytest.raises(WireError, match=f"speaks version {version}, this node speaks 1"):
        open_envelope(msgpack.packb([version, CHAIN, b"whatever a later version puts here"]))


@pytest.mark.parametrize(
    "outer",
    [
        [True, CHAIN, encode(HEARTBEAT)],
        [1.0, CHAIN, encode(HEARTBEAT)],
        [1, CHAIN[:31], encode(HEARTBEAT)],
        [1, "x" * 32, encode(HEARTBEAT)],
        [1, CHAIN, "text"],
        [1, CHAIN],
        [1, CHAIN, encode(HEARTBEAT), 1],
        {"1": CHAIN},
        1,
    ],
)
def test_an_envelope_of_another_shape_is_refused(outer: object) -> None:
    with pytest.raises(WireError, match=r"^envelope: "):
        open_envelope(msgpack.packb(outer))


def test_a_message_has_a_largest_size_at_both_ends() -> None:
    with pytest.raises(WireError, match="at most"):
        envelope(bytes(MAX_CONTROL_BYTES), CHAIN)
    with pytest.raises(WireError, match="1048577 bytes, but at most 1048576"):
        open_envelope(bytes(MAX_CONTROL_BYTES + 1))
    with pytest.raises(WireError, match="31 bytes"):
        envelope(b"", CHAIN[:31])
