"""Bodies as bytes and back: bounds of the error, sizes, and that nothing but WireError comes of any bytes."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from flop_p2p.errors import TrainingError, WireError
from flop_p2p.wire.encodings import (
    AGREED,
    BLOCK,
    SPAN,
    add_top_k,
    changes,
    decode_bfloat16,
    decode_int8,
    encode_bfloat16,
    encode_int8,
    encode_top_k,
    encoded_bytes,
)

Body = np.ndarray[Any, np.dtype[np.float32]]
LIMITS = np.finfo(np.float32)
TOP_K = 0.1
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False, allow_subnormal=False)
BODIES = arrays.arrays(np.float32, st.integers(1, 40), elements=FINITE)
SIZES = (1, 7, BLOCK - 1, BLOCK, BLOCK + 1, SPAN, SPAN + BLOCK + 3)


def draw(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def numbers(size: int, seed: int = 0) -> Body:
    return draw(seed).normal(size=size).astype(np.float32)


def scales_of(body: Body) -> Body:
    """The int8 scale of each number's block."""
    padded = np.pad(np.abs(body), (0, -len(body) % BLOCK)).reshape(-1, BLOCK)
    return np.repeat(padded.max(axis=1) / 127, BLOCK)[: len(body)]


ENCODERS: dict[str, Callable[[Body], Any]] = {
    "bfloat16": encode_bfloat16,
    "int8": lambda body: encode_int8(body, draw()),
    "top-k": lambda body: encode_top_k(body, TOP_K),
}
DECODERS: dict[str, Callable[[Any, int], Body]] = {
    "bfloat16": decode_bfloat16,
    "int8": decode_int8,
    "top-k": lambda data, parameters: add_top_k(np.zeros(parameters, np.float32), data, TOP_K),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("encoding", ENCODERS)
def test_the_bytes_follow_from_the_number_of_parameters(encoding: Any, size: int) -> None:
    expected = encoded_bytes(encoding, size, TOP_K)
    for body in (numbers(size), np.zeros(size, np.float32), np.full(size, LIMITS.max)):
        data = ENCODERS[encoding](body)
        assert data.dtype == np.uint8
        assert len(data) == expected
        assert DECODERS[encoding](data, size).shape == (size,)


def test_what_each_encoding_saves() -> None:
    full = encoded_bytes("float32", 1_000_000, TOP_K)
    assert full == 4_000_000
    assert full / encoded_bytes("bfloat16", 1_000_000, TOP_K) == 2
    assert 3.98 < full / encoded_bytes("int8", 1_000_000, TOP_K) < 4
    assert full / encoded_bytes("top-k", 1_000_000, 0.01) == pytest.approx(66.7, abs=0.1)
    assert {encoding for each in AGREED.values() for encoding in each} == {*ENCODERS, "float32"}


@given(BODIES)
def test_bfloat16_is_the_nearest_and_stays_finite(body: Body) -> None:
    decoded = decode_bfloat16(encode_bfloat16(body), len(body))
    assert np.isfinite(decoded).all()
    largest = np.float32(3.3895314e38)
    error = np.abs(decoded.astype(np.float64) - np.clip(body, -largest, largest))
    assert (error <= np.abs(body.astype(np.float64)) * 2**-8).all()
    np.testing.assert_array_equal(decode_bfloat16(encode_bfloat16(decoded), len(body)), decoded)


def test_bfloat16_rounds_halves_to_even() -> None:
    bits = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF], np.uint32)
    decoded = decode_bfloat16(encode_bfloat16(bits.view(np.float32)), 4)
    assert decoded.view(np.uint32).tolist() == [0x3F800000, 0x3F820000, 0x3F810000, 0x3F800000]


@given(BODIES, st.integers(0, 2**32))
def test_int8_is_off_by_less_than_a_scale(body: Body, seed: int) -> None:
    decoded = decode_int8(encode_int8(body, draw(seed)), len(body))
    assert np.isfinite(decoded).all()
    scale = scales_of(body).astype(np.float64)
    error = np.abs(decoded.astype(np.float64) - body)
    assert (error <= scale * 1.0001 + 1e-40).all()


@pytest.mark.parametrize("size", SIZES)
def test_int8_has_a_scale_for_every_block(size: int) -> None:
    magnitudes = 2.0 ** (np.arange(100) - 50)
    body = (numbers(size) * np.repeat(magnitudes, BLOCK)[:size]).astype(np.float32)
    decoded = decode_int8(encode_int8(body, draw()), size)
    assert (np.abs(decoded - body) <= 1.0001 * scales_of(body)).all()
    assert size < BLOCK or len({*scales_of(body).tolist()}) == -(-size // BLOCK)


def test_int8_is_right_on_average_where_rounding_to_the_nearest_is_not() -> None:
    body = np.full(BLOCK, 0.3, np.float32)
    body[0] = 127  # the scale is 1
    decoded = [decode_int8(encode_int8(body, draw(seed)), BLOCK)[1:] for seed in range(100)]
    assert {*np.unique(decoded).tolist()} == {0.0, 1.0}
    assert np.mean(decoded) == pytest.approx(0.3, abs=5 * np.sqrt(0.21 / 102_300))
    np.testing.assert_allclose(np.mean(decoded, axis=0), 0.3, atol=5 * np.sqrt(0.21 / 100))


def test_int8_of_the_same_draw_is_the_same() -> None:
    body = numbers(3000)
    assert encode_int8(body, draw(1)).tobytes() == encode_int8(body, draw(1)).tobytes()
    assert encode_int8(body, draw(1)).tobytes() != encode_int8(body, draw(2)).tobytes()


@given(BODIES, st.floats(0.01, 0.5))
def test_top_k_changes_the_largest_and_nothing_else(body: Body, part: float) -> None:
    count = changes(len(body), part)
    changed = add_top_k(np.zeros(len(body), np.float32), encode_top_k(body, part), part)
    order = np.argsort(-np.abs(body), kind="stable")
    largest, others = order[:count], order[count:]
    np.testing.assert_array_equal(changed[largest], decode_bfloat16(encode_bfloat16(body[largest]), count))
    assert not changed[others].any()


def test_top_k_adds_to_a_copy() -> None:
    base = numbers(100)
    before = base.copy()
    changed = add_top_k(base, encode_top_k(numbers(100, seed=1), TOP_K), TOP_K)
    np.testing.assert_array_equal(base, before)
    assert (changed != base).sum() == 10


def test_top_k_of_what_is_left_out_comes_to_the_whole() -> None:
    body, public = numbers(100), np.zeros(100, np.float32)
    for _ in range(30):
        public = add_top_k(public, encode_top_k(body - public, TOP_K), TOP_K)
    np.testing.assert_allclose(public, body, atol=1e-3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("encoding", ENCODERS)
def test_a_body_that_is_not_finite_is_not_encoded(encoding: str, value: float) -> None:
    body = numbers(SPAN + 5)
    body[-1] = value
    with pytest.raises(TrainingError, match="not finite"):
        ENCODERS[encoding](body)


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("encoding", DECODERS)
def test_another_size_is_refused(encoding: str, change: int) -> None:
    data = ENCODERS[encoding](numbers(100))
    wrong = np.resize(data, len(data) + change)
    with pytest.raises(WireError, match=f"{len(data) + change} bytes instead of {len(data)}"):
        DECODERS[encoding](wrong, 100)


@given(st.data())
def test_of_any_bytes_come_finite_numbers_or_a_wire_error(data: st.DataObject) -> None:
    encoding: Any = data.draw(st.sampled_from(sorted(DECODERS)))
    parameters = data.draw(st.integers(1, 60))
    size = encoded_bytes(encoding, parameters, TOP_K)
    size = data.draw(st.one_of(st.just(size), st.integers(0, 200)))
    content = np.frombuffer(data.draw(st.binary(min_size=size, max_size=size)), np.uint8)
    try:
        decoded = DECODERS[encoding](content, parameters)
    except WireError:
        return
    assert size == encoded_bytes(encoding, parameters, TOP_K)
    assert decoded.shape == (parameters,)
    assert np.isfinite(decoded).all()


@pytest.mark.parametrize("code", [0x7F80, 0xFF80, 0x7FC0])
def test_a_bfloat16_that_is_not_finite_is_refused(code: int) -> None:
    codes = np.zeros(SPAN + 9, "<u2")
    codes[-1] = code
    with pytest.raises(WireError, match="not finite"):
        decode_bfloat16(codes.view(np.uint8), len(codes))


@pytest.mark.parametrize("scale", [np.nan, np.inf, -np.inf, -1.0, LIMITS.max])
def test_a_scale_that_no_encoder_writes_is_refused(scale: float) -> None:
    data = encode_int8(numbers(2 * BLOCK), draw())
    data[4:8].view("<f4")[0] = scale
    with pytest.raises(WireError, match="a scale is"):
        decode_int8(data, 2 * BLOCK)


def test_a_code_that_no_encoder_writes_is_refused() -> None:
    data = encode_int8(numbers(10), draw())
    data[-1] = 0x80
    with pytest.raises(WireError, match="-128"):
        decode_int8(data, 10)


@pytest.mark.parametrize("positions", [[5, 5], [6, 5], [5, 20], [0, 2**32 - 1]])
def test_positions_that_double_descend_or_do_not_exist_are_refused(positions: list[int]) -> None:
    data = np.concatenate([np.array(positions, "<u4").view(np.uint8), np.zeros(4, np.uint8)])
    with pytest.raises(WireError, match="the positions are not 2 ascending ones below 20"):
        add_top_k(np.zeros(20, np.float32), data, TOP_K)


def test_a_change_to_infinity_is_refused() -> None:
    data = encode_top_k(np.full(20, LIMITS.max), TOP_K)
    with pytest.raises(WireError, match="after its change"):
        add_top_k(np.full(20, LIMITS.max), data, TOP_K)
