"""The list of participants of masked gossip, as bytes inside a message: a msgpack list of name, key and signature."""

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import msgpack  # type: ignore[import-untyped]

from flop_p2p.errors import WireError

KEY_BYTES, SIGNATURE_BYTES = 32, 64
MAX_NAME_BYTES = 256  # 64 characters
MAX_PARTICIPANTS = 1024
MAX_LIST_BYTES = 1 << 19


class Participant(NamedTuple):
    """A site that has declared itself present.

    key: X25519 public key, made for one receiver and round, 32 raw bytes.
    signature: Ed25519 over both and the site's name, 64 bytes.
    """

    name: str
    key: bytes
    signature: bytes


def pack(participants: Sequence[Participant]) -> bytes:
    """The list as bytes, in ascending order of the names."""
    return bytes(msgpack.packb([list(each) for each in sorted(participants)]))


def unpack(data: bytes) -> tuple[Participant, ...]:
    """The list in ``data``: well-formed, names ascending and each once; signatures are not looked at.

    Raises:
        WireError: ``data`` is anything else.
    """
    if len(data) > MAX_LIST_BYTES:
        raise WireError(f"list of participants: {len(data)} bytes, but at most {MAX_LIST_BYTES} are accepted")
    try:
        rows = msgpack.unpackb(
            data,
            max_array_len=MAX_PARTICIPANTS,
            max_str_len=MAX_NAME_BYTES,
            max_bin_len=SIGNATURE_BYTES,
            max_map_len=0,
            max_ext_len=0,
        )
    except ValueError as error:
        raise WireError(f"list of participants: not well-formed msgpack ({error})") from None
    if not isinstance(rows, list) or not rows or not all(map(_is_participant, rows)):
        raise WireError("list of participants: not a list of names, keys and signatures")
    names = [row[0] for row in rows]
    if any(one >= other for one, other in itertools.pairwise(names)):
        raise WireError("list of participants: its names are not ascending")
    return tuple(Participant(*row) for row in rows)


def _is_participant(row: object) -> bool:
    if not isinstance(row, list) or len(row) != 3:
        return False
    name, key, signature = row
    sized = isinstance(key, bytes) and isinstance(signature, bytes)
    return isinstance(name, str) and sized and (len(key), len(signature)) == (KEY_BYTES, SIGNATURE_BYTES)
