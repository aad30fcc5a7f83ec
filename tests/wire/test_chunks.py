import hashlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.config import GossipSettings
from flop_p2p.errors import WireError
from flop_p2p.wire import Assembly, Descriptor, chunk_count, chunk_views
from flop_p2p.wire.chunks import CHECK_BLOCK
from flop_p2p.wire.encodings import add_top_k, decode_int8, encode_bfloat16, encode_int8, encode_top_k

SCHEMA = bytes(range(32))
PLAIN = GossipSettings()
Body = np.ndarray[Any, np.dtype[np.float32]]


def numbers(size: int) -> Body:
    return np.random.default_rng(size).normal(size=size).astype(np.float32)


def describe(body: Body, chunk_bytes: int = 64, **changes: Any) -> Descriptor:
    fields = {
        "round": 5,
        "schema_hash": SCHEMA,
        "size": body.nbytes,
        "chunk_bytes": chunk_bytes,
        "chunks": chunk_count(body.nbytes, chunk_bytes),
        "sha256": hashlib.sha256(body).digest(),
        "chain": bytes(32),
    }
    return Descriptor(**fields | changes)


def assemble(descriptor: Descriptor, body: Body) -> Assembly:
    """An assembly that all chunks of ``body`` went through."""
    assembly = Assembly(descriptor, schema_hash=SCHEMA, parameters=len(body), gossip=PLAIN)
    for index, chunk in enumerate(chunk_views(body.data, descriptor.chunk_bytes), 1):
        assembly.target(index)[:] = chunk
        assembly.add(index)
    return assembly


@given(st.integers(1, 300), st.integers(1, 400).map(lambda words: 4 * words))
def test_chunks_make_the_same_body_again(size: int, chunk_bytes: int) -> None:
    body = numbers(size)
    views = chunk_views(body.data, chunk_bytes)
    assert len(views) == chunk_count(body.nbytes, chunk_bytes)
    assert b"".join(views) == body.tobytes()
    assert {view.nbytes for view in views[:-1]} <= {chunk_bytes}
    assembly = assemble(describe(body, chunk_bytes), body)
    assert assembly.complete
    received = assembly.body()
    assert received.dtype == np.float32
    np.testing.assert_array_equal(received, body)


def test_chunks_are_views_of_the_body() -> None:
    body = numbers(40)
    first, *_ = chunk_views(body.data, 64)
    body[0] = 7.0
    assert first[:4] == np.float32(7.0).tobytes()


def test_numbers_travel_little_endian() -> None:
    body = np.zeros(1, dtype=np.float32)
    assembly = Assembly(
        describe(body, sha256=hashlib.sha256(b"\x00\x00\x80\x3f").digest()),
        schema_hash=SCHEMA,
        parameters=1,
        gossip=PLAIN,
    )
    assembly.target(1)[:] = b"\x00\x00\x80\x3f"
    assembly.add(1)
    assert assembly.body().tolist() == [1.0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_hash": bytes(32)}, "body of schema 0000000000000000, ours is 0001020304050607"),
        ({"size": 404, "chunks": 7}, "body of 404 bytes, but 100 parameters take 400"),
        ({"size": 396}, "body of 396 bytes"),
        ({"size": 2**41, "chunk_bytes": 4 << 20, "chunks": 2**19}, "bytes, but 100 parameters"),
        ({"chunks": 6}, "6 chunks of 64 bytes do not make 400"),
        ({"chunks": 8}, "8 chunks of 64 bytes do not make 400"),
        ({"chunk_bytes": 400, "chunks": 7}, "7 chunks of 400 bytes"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_before_anything_is_allocated(
    changes: dict[str, Any], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = describe(numbers(100), **changes)
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("allocated"))
    with pytest.raises(WireError, match=words):
        Assembly(descriptor, schema_hash=SCHEMA, parameters=100, gossip=PLAIN)


def test_missing_double_and_disordered_chunks_are_refused() -> None:
    body = numbers(48)
    assembly = Assembly(describe(body), schema_hash=SCHEMA, parameters=48, gossip=PLAIN)
    views = chunk_views(body.data, 64)
    for index, wrong in ((1, (-1, 0, 2, 3, 4)), (2, (-1, 0, 1, 3)), (3, (0, 1, 2, 4))):
        for other in wrong:
            for refuses in (assembly.target, assembly.add):
                with pytest.raises(WireError, match=f"chunk {other} after {index - 1} of 3"):
                    refuses(other)
        with pytest.raises(WireError, match=f"{index - 1} of 3 chunks came"):
            assembly.body()
        assert not assembly.complete
        assembly.target(index)[:] = views[index - 1]
        assembly.add(index)
    for other in (0, 1, 3, 4):
        with pytest.raises(WireError, match=f"chunk {other} after 3 of 3"):
            assembly.target(other)
    np.testing.assert_array_equal(assembly.body(), body)


@given(st.integers(0, 8 * 400 - 1))
def test_one_flipped_bit_of_the_body_is_refused(bit: int) -> None:
    body = numbers(100)
    descriptor = describe(body)
    body.view(np.uint8)[bit // 8] ^= np.uint8(1 << bit % 8)
    with pytest.raises(WireError, match="body of round 5: its SHA-256"):
        assemble(descriptor, body).body()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, CHECK_BLOCK - 1, CHECK_BLOCK, 2 * CHECK_BLOCK, 2 * CHECK_BLOCK + 6])
def test_a_number_that_is_not_finite_is_refused_by_position(value: float, position: int) -> None:
    body = np.ones(2 * CHECK_BLOCK + 7, dtype=np.float32)
    body[position] = value
    body[-1] = np.nan if position < 2 * CHECK_BLOCK else body[-1]
    with pytest.raises(WireError, match=f"body of round 5: number {position} is {value}, not finite"):
        assemble(describe(body, 1 << 20), body).body()


def test_the_largest_finite_numbers_are_accepted() -> None:
    limits = np.finfo(np.float32)
    body = np.array([limits.max, limits.min, limits.tiny, limits.smallest_subnormal, -0.0], dtype=np.float32)
    assert assemble(describe(body), body).body().tobytes() == body.tobytes()


def test_the_body_is_handed_out_and_checked_without_a_copy() -> None:
    body = numbers(1 << 20)
    assembly = Assembly(describe(body, 4 << 20), schema_hash=SCHEMA, parameters=len(body), gossip=PLAIN)
    target = assembly.target(1)
    target[:] = body.data.cast("B")
    assembly.add(1)
    tracemalloc.start()
    try:
        received = assembly.body()
        assert tracemalloc.get_traced_memory()[1] < 3 * CHECK_BLOCK  # a mask of the whole body takes a million bytes
    finally:
        tracemalloc.stop()
    assert np.shares_memory(received, np.frombuffer(target, dtype=np.uint8))
    assert received.flags.writeable


# Encoded bodies


def received(data: np.ndarray, compression: Any, parameters: int, onto: Body | None = None, **changes: Any) -> Body:
    """The body of ``data``, sent in chunks of 64 bytes between two that agreed on ``compression``."""
    fields = {"size": data.nbytes, "chunks": chunk_count(data.nbytes, 64), "sha256": hashlib.sha256(data).digest()}
    descriptor = describe(np.zeros(1, np.float32), **fields | {"encoding": compression, **changes})
    gossip = GossipSettings(compression=compression)
    assembly = Assembly(descriptor, schema_hash=SCHEMA, parameters=parameters, gossip=gossip)
    for index, chunk in enumerate(chunk_views(data.data, 64), 1):
        assembly.target(index)[:] = chunk
        assembly.add(index)
    return assembly.body(onto)


@given(st.integers(1, 3000))
def test_an_encoded_body_comes_as_its_encoding_leaves_it(size: int) -> None:
    body, base = numbers(size), numbers(size + 1)[:size]
    data = encode_int8(body, np.random.default_rng(0))
    np.testing.assert_array_equal(received(data, "int8", size), decode_int8(data, size))
    np.testing.assert_allclose(received(encode_bfloat16(body), "bfloat16", size), body, rtol=2**-8)
    changes = encode_top_k(body - base, 0.01)
    np.testing.assert_array_equal(received(changes, "top-k", size, base, base=4), add_top_k(base, changes, 0.01))


@pytest.mark.parametrize("agreed", ["none", "bfloat16", "int8", "top-k"])
@pytest.mark.parametrize("encoding", ["float32", "bfloat16", "int8", "top-k"])
def test_another_encoding_than_agreed_is_refused_before_anything_is_allocated(
    agreed: Any, encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if encoding == agreed or (encoding, agreed) in (("float32", "none"), ("float32", "top-k")):
        return
    descriptor = describe(numbers(100), encoding=encoding, base=3 if encoding == "top-k" else -1)
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("allocated"))
    with pytest.raises(WireError, match=f"body in {encoding}, but the federation agreed on"):
        Assembly(descriptor, schema_hash=SCHEMA, parameters=100, gossip=GossipSettings(compression=agreed))


@pytest.mark.parametrize("change", [-1, 1])
def test_an_encoded_body_of_another_size_is_refused_before_anything_is_allocated(
    change: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    descriptor = describe(numbers(100), encoding="int8", size=104 + change, chunks=2)
    monkeypatch.setattr(np, "empty", lambda *_, **__: pytest.fail("allocated"))
    with pytest.raises(WireError, match=f"body of {104 + change} bytes, but 100 parameters take 104 in int8"):
        Assembly(descriptor, schema_hash=SCHEMA, parameters=100, gossip=GossipSettings(compression="int8"))


def test_an_encoded_body_that_no_encoder_writes_is_refused() -> None:
    data = encode_int8(numbers(100), np.random.default_rng(0))
    data[-1] = 0x80
    with pytest.raises(WireError, match="body of round 5: int8: a code is -128"):
        received(data, "int8", 100)
    with pytest.raises(WireError, match="body of round 5: its SHA-256"):
        received(data, "int8", 100, sha256=bytes(32))
    with pytest.raises(WireError, match="body of round 5: top-k: changes of a body that never came"):
        received(encode_top_k(numbers(100), 0.01), "top-k", 100, base=4)


@pytest.mark.parametrize(("encoding", "base"), [("float32", 0), ("int8", 3), ("top-k", -1)])
def test_changes_and_nothing_else_have_a_base(encoding: str, base: int) -> None:
    with pytest.raises(ValueError, match=f"a body in {encoding} that changes one of round {base}"):
        describe(numbers(3), encoding=encoding, base=base)
