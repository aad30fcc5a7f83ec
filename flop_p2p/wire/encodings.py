"""How the numbers of a body are written as bytes: in full, rounded, or as a few changes to a body sent before.

The bytes of an encoding follow from the number of parameters and the settings alone, so that nothing is ever allocated
on a length that a sender declares. All numbers are little-endian. Whatever the bytes, decoding gives finite numbers or
raises WireError, nothing else.
"""

from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from flop_p2p.config.gossip import Compression, GossipSettings
from flop_p2p.errors import TrainingError, WireError

Compressed = Literal["bfloat16", "int8", "top-k"]
Encoding = Literal["float32", "masked"] | Compressed  # masked: integers modulo 2^32, see `flop_p2p.gossip.masking`
Numbers = NDArray[np.float32]  # [parameters]
Bytes = NDArray[np.uint8]  # [bytes]
Masked = NDArray[np.uint32]  # [parameters]

# what may be sent: the first to whoever holds no body yet, the last to all others
AGREED: dict[Compression, tuple[Encoding, ...]] = {
    "none": ("float32",),
    "bfloat16": ("bfloat16",),
    "int8": ("int8",),
    "top-k": ("float32", "top-k"),
}
BLOCK = 1024  # numbers of int8 that share a scale
SPAN = 64 * BLOCK  # numbers worked on at a time: they stay in the processor's cache
LARGEST_CODE = 127
LARGEST_SCALE = np.nextafter(np.float32(np.finfo(np.float32).max / LARGEST_CODE), np.float32(0))
INFINITE, LARGEST = 0x7F80, 0x7F7F  # bfloat16 without its sign: infinity, the largest number
CHANGE_BYTES = 6  # a position and a bfloat16


def encoded_bytes(encoding: Encoding, parameters: int, top_k: float) -> int:
    """How many bytes a body takes.

    Args:
        parameters: numbers of the body.
        top_k: the part of them that ``top-k`` changes.
    """
    match encoding:
        case "float32" | "masked":
            return 4 * parameters
        case "bfloat16":
            return 2 * parameters
        case "int8":
            return 4 * _blocks(parameters) + parameters
        case "top-k":
            return CHANGE_BYTES * changes(parameters, top_k)


def agreed(gossip: GossipSettings, masked: bool) -> tuple[Encoding, ...]:
    """The encodings that the settings allow; where bodies are masked, no other."""
    return ("masked",) if masked else AGREED[gossip.compression]


def agreed_bytes(gossip: GossipSettings, parameters: int) -> tuple[int, ...]:
    """How many bytes a body may take: one number for each encoding that the settings allow, masked or not."""
    return tuple(encoded_bytes(encoding, parameters, gossip.top_k) for encoding in AGREED[gossip.compression])


def changes(parameters: int, top_k: float) -> int:
    """How many numbers ``top-k`` changes: the part ``top_k`` of them, and at least one."""
    return max(1, round(top_k * parameters))


def encode_bfloat16(body: Numbers) -> Bytes:
    """The upper half of each float32, rounded to nearest even; 2 bytes a number, relative error at most 2^-8.

    Numbers beyond the largest bfloat16 become it.

    Raises:
        TrainingError: a number is not finite.
    """
    codes = np.empty(len(body), "<u2")
    for start in range(0, len(body), SPAN):
        piece = _finite(body[start : start + SPAN]).view(np.uint32)
        rounded = (piece + 0x7FFF + ((piece >> 16) & 1)) >> 16
        overflow = (rounded & 0x7FFF) >= INFINITE
        codes[start : start + SPAN] = np.where(overflow, (rounded & 0x8000) | LARGEST, rounded)
    return codes.view(np.uint8)


def decode_bfloat16(data: Bytes, parameters: int) -> Numbers:
    """The ``parameters`` numbers that `encode_bfloat16` wrote.

    Raises:
        WireError: so many do not take so many bytes, or one is not finite.
    """
    _check_size(data, 2 * parameters, "bfloat16")
    codes = data.view("<u2")
    body = np.empty(parameters, np.float32)
    for start in range(0, parameters, SPAN):
        piece = codes[start : start + SPAN]
        if ((piece & INFINITE) == INFINITE).any():
            raise WireError(f"bfloat16: one of the numbers from {start} on is not finite")
        body[start : start + SPAN].view(np.uint32)[:] = piece.astype(np.uint32) << 16
    return body


def encode_int8(body: Numbers, draw: np.random.Generator) -> Bytes:
    """Each number as a whole multiple of its block's scale, rounded up or down at random so that the mean is kept.

    A scale is the largest magnitude of a block of `BLOCK` numbers over 127, a float32; all scales come first. A number
    that lies a fraction f above a multiple is rounded up with probability f (Alistarh et al., QSGD, NeurIPS 2017): the
    error is below one scale and zero in expectation.

    Args:
        draw: makes the random choices; the same one gives the same bytes.

    Raises:
        TrainingError: a number is not finite.
    """
    data = np.empty(encoded_bytes("int8", len(body), 0), np.uint8)
    scales, codes = _int8_views(data, len(body))
    for start in range(0, len(body), SPAN):
        piece = _finite(body[start : start + SPAN])
        rows = np.zeros((_blocks(len(piece)), BLOCK), np.float32)
        rows.reshape(-1)[: len(piece)] = piece
        scale = np.minimum(np.abs(rows).max(axis=1) / np.float32(LARGEST_CODE), LARGEST_SCALE)
        scales[start // BLOCK : start // BLOCK + len(scale)] = scale
        rows /= np.where(scale > 0, scale, np.float32(1))[:, np.newaxis]
        rows += draw.random(rows.shape, dtype=np.float32)
        np.clip(np.floor(rows, out=rows), -LARGEST_CODE, LARGEST_CODE, out=rows)
        codes[start : start + SPAN] = rows.reshape(-1)[: len(piece)].astype(np.int8)
    return data


def decode_int8(data: Bytes, parameters: int) -> Numbers:
    """The ``parameters`` numbers that `encode_int8` wrote, rounded.

    Raises:
        WireError: so many do not take so many bytes, a scale is negative, not finite or too large, or a code is -128.
    """
    _check_size(data, encoded_bytes("int8", parameters, 0), "int8")
    scales, codes = _int8_views(data, parameters)
    if not ((scales >= 0) & (scales <= LARGEST_SCALE)).all():
        raise WireError("int8: a scale is negative, not finite or too large")
    if (codes < -LARGEST_CODE).any():
        raise WireError("int8: a code is -128, which no encoder writes")
    body = codes.astype(np.float32)
    body *= np.repeat(scales, BLOCK)[:parameters]
    return body


def encode_top_k(difference: Numbers, top_k: float) -> Bytes:
    """The part ``top_k`` of the numbers that is largest in magnitude, of equal ones the first: positions, then values.

    Positions ascend, as unsigned 32-bit integers; values are bfloat16.

    Raises:
        TrainingError: a number is not finite.
    """
    count = changes(len(difference), top_k)
    magnitudes = np.abs(_finite(difference))
    threshold = np.partition(magnitudes, -count)[-count]
    larger = np.flatnonzero(magnitudes > threshold)
    equal = np.flatnonzero(magnitudes == threshold)[: count - len(larger)]
    positions = np.sort(np.concatenate([larger, equal]))
    values = encode_bfloat16(difference[positions])
    return np.concatenate([positions.astype("<u4").view(np.uint8), values])


def add_top_k(base: Numbers, data: Bytes, top_k: float) -> Numbers:
    """A copy of ``base`` with the changes added that `encode_top_k` wrote.

    Raises:
        WireError: they do not take so many bytes, a position does not exist or does not ascend, or a number is not
            finite, or not after the change.
    """
    count = changes(len(base), top_k)
    _check_size(data, CHANGE_BYTES * count, "top-k")
    positions = data[: 4 * count].view("<u4")
    if (positions[1:] <= positions[:-1]).any() or positions[-1] >= len(base):
        raise WireError(f"top-k: the positions are not {count} ascending ones below {len(base)}")
    values = decode_bfloat16(data[4 * count :], count)
    body = base.copy()
    with np.errstate(over="ignore"):
        changed = body[positions] + values
    if not np.isfinite(changed).all():
        raise WireError("top-k: a number is not finite after its change")
    body[positions] = changed
    return body


def decode(encoding: Compressed, data: Bytes, parameters: int, top_k: float, base: Numbers | None) -> Numbers:
    """The body, ``[parameters]``, that ``data`` encodes.

    Args:
        base: the body that ``top-k`` changes; the others need none.

    Raises:
        WireError: ``data`` is not what the encoding writes, or there is no such body to change.
    """
    match encoding:
        case "bfloat16":
            return decode_bfloat16(data, parameters)
        case "int8":
            return decode_int8(data, parameters)
        case "top-k":
            if base is None:
                raise WireError("top-k: changes of a body that never came")
            return add_top_k(base, data, top_k)


def _blocks(parameters: int) -> int:
    return -(-parameters // BLOCK)


def _int8_views(data: Bytes, parameters: int) -> tuple[Numbers, NDArray[np.int8]]:
    """The scales ``[blocks]`` and the codes ``[parameters]`` in ``data``."""
    end = 4 * _blocks(parameters)
    return data[:end].view("<f4"), data[end:].view(np.int8)


def _finite(numbers: Numbers) -> Numbers:
    if not np.isfinite(numbers).all():
        raise TrainingError("a body with a number that is not finite cannot be compressed; lower the learning rate")
    return numbers


def _check_size(data: NDArray[Any], expected: int, what: str) -> None:
    if data.nbytes != expected:
        raise WireError(f"{what}: {data.nbytes} bytes instead of {expected}")
