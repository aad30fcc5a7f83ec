from typing import Any

import msgpack
import pytest

from flop_p2p.errors import WireError
from flop_p2p.wire import (
    MAX_CHUNK_BYTES,
    MAX_DESCRIPTOR_BYTES,
    MAX_FRAMES,
    MAX_HEADER_BYTES,
    Descriptor,
    FrameHeader,
)
from flop_p2p.wire.frames import MAX_CHUNKS

HEADER = FrameHeader(session=b"session1", counter=MAX_FRAMES - 1, round=2**31, index=MAX_CHUNKS, count=MAX_CHUNKS)
DESCRIPTOR = Descriptor(
    round=2**31,
    schema_hash=bytes(32),
    encoding="top-k",
    base=2**31,
    size=MAX_CHUNKS * MAX_CHUNK_BYTES,
    chunk_bytes=MAX_CHUNK_BYTES,
    chunks=MAX_CHUNKS,
    sha256=bytes(32),
    chain=bytes(32),
)


def test_the_largest_header_and_descriptor_fit_their_limits() -> None:
    assert len(HEADER.encode()) <= MAX_HEADER_BYTES
    assert len(DESCRIPTOR.encode()) <= MAX_DESCRIPTOR_BYTES
    assert FrameHeader.decode(HEADER.encode()) == HEADER
    assert Descriptor.decode(memoryview(DESCRIPTOR.encode())) == DESCRIPTOR


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 2},
        {"session": bytes(7)},
        {"counter": -1},
        {"counter": MAX_FRAMES},
        {"round": -2},
        {"index": -1},
        {"index": MAX_CHUNKS + 1, "count": MAX_CHUNKS + 1},
        {"index": 3, "count": 2},
        {"index": 0, "count": 0},
        {"count": 1.0},
        {"more": 1},
    ],
)
def test_a_header_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=r"^frame header: "):
        FrameHeader.decode(msgpack.packb(HEADER.model_dump() | changes))


@pytest.mark.parametrize(
    "changes",
    [
        {"schema_hash": bytes(31)},
        {"encoding": "float16"},
        {"encoding": "int8"},
        {"base": -1},
        {"base": -2},
        {"size": 0},
        {"size": MAX_CHUNKS * MAX_CHUNK_BYTES + 1},
        {"chunk_bytes": 0},
        {"chunk_bytes": 1026},
        {"chunk_bytes": MAX_CHUNK_BYTES + 4},
        {"chunks": 0},
        {"chunks": MAX_CHUNKS + 1},
        {"sha256": "0" * 32},
        {"more": 1},
    ],
)
def test_a_descriptor_out_of_bounds_is_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(WireError, match=r"^descriptor: "):
        Descriptor.decode(msgpack.packb(DESCRIPTOR.model_dump() | changes))


def test_a_header_or_descriptor_that_is_too_long_is_not_even_read() -> None:
    with pytest.raises(WireError, match=f"at most {MAX_HEADER_BYTES}"):
        FrameHeader.decode(bytes(MAX_HEADER_BYTES + 1))
    with pytest.raises(WireError, match=f"at most {MAX_DESCRIPTOR_BYTES}"):
        Descriptor.decode(bytes(MAX_DESCRIPTOR_BYTES + 1))
