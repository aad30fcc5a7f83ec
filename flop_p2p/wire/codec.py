"""Messages to bytes and back. Whatever the bytes, decoding gives a valid message or raises WireError, nothing else.

Limits are checked before anything is allocated: the size of the whole, then msgpack's own limits on every length
that the bytes declare. Extension types, keys that are not text or come twice, lists and maps as
values, and trailing bytes are refused.
"""

from typing import Any, TypeVar, get_args

import msgpack  # type: ignore[import-untyped]
from pydantic import ValidationError

from flop_p2p.errors import WireError
from flop_p2p.wire.messages import MAX_CONTROL_BYTES, WIRE_VERSION, AnyMessage, Message
from flop_p2p.wire.participants import MAX_LIST_BYTES, SIGNATURE_BYTES

CHAIN_BYTES = 32  # SHA-256 of an egress log line
NESTED = (list, dict)
NOTHING = {f"max_{kind}_len": 0 for kind in ("array", "map", "str", "bin", "ext")}
M = TypeVar("M", bound=Message)
CLASSES: dict[str, type[AnyMessage]] = {
    model.model_fields["kind"].default: model for model in get_args(get_args(AnyMessage)[0])
}


def encode(message: Message) -> bytes:
    """The payload: a msgpack map of the fields in the order of their declaration. The egress log hashes it."""
    return bytes(msgpack.packb(message.model_dump()))


def envelope(payload: bytes, chain: bytes) -> bytes:
    """What travels on the control channel: msgpack ``[version, chain, payload]``.

    Args:
        payload: from `encode`.
        chain: hash of the egress log line about this message (32 bytes).

    Raises:
        WireError: it would be larger than a receiver accepts, or the chain is not a hash.
    """
    if len(chain) != CHAIN_BYTES:
        raise WireError(f"the chain hash has {len(chain)} bytes instead of {CHAIN_BYTES}")
    data = bytes(msgpack.packb([WIRE_VERSION, chain, payload]))
    if len(data) > MAX_CONTROL_BYTES:
        raise WireError(
            f"a message of {len(data)} bytes is too large to send; at most {MAX_CONTROL_BYTES} are accepted"
        )
    return data


def open_envelope(data: bytes | bytearray | memoryview) -> tuple[AnyMessage, bytes]:
    """The message in ``data`` and the chain hash that came with it.

    Raises:
        WireError: ``data`` is anything but an envelope of this version around one of the listed messages.
    """
    outer = _unpack(data, MAX_CONTROL_BYTES, "envelope", max_array_len=3, max_bin_len=MAX_CONTROL_BYTES)
    if not isinstance(outer, list) or len(outer) != 3 or type(outer[0]) is not int:
        raise WireError("envelope: not a list of version, chain hash and payload")
    version, chain, payload = outer
    if version != WIRE_VERSION:
        raise WireError(f"envelope: the sender speaks version {version}, this node speaks {WIRE_VERSION}")
    if not isinstance(chain, bytes) or len(chain) != CHAIN_BYTES or not isinstance(payload, bytes):
        raise WireError("envelope: chain hash or payload is not what it should be")
    fields = read_map(payload, MAX_CONTROL_BYTES, "message", MAX_LIST_BYTES)
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in CLASSES:
        raise WireError(f"message: unknown kind {kind!a:.60}")
    return build(CLASSES[kind], fields, f"{kind} message"), chain


def read_map(
    data: bytes | bytearray | memoryview, limit: int, what: str, longest: int = SIGNATURE_BYTES
) -> dict[str, Any]:
    """The one msgpack map with text keys that ``data`` (at most ``limit`` bytes) consists of; its values are unchecked.

    Args:
        longest: bytes of a value.

    Raises:
        WireError: ``data`` is anything else; the message begins with ``what``.
    """
    fields = _unpack(data, limit, what, max_map_len=32, max_str_len=limit, max_bin_len=longest)
    if not isinstance(fields, dict):
        raise WireError(f"{what}: not a map of fields")
    return fields


def build(model: type[M], fields: dict[str, Any], what: str) -> M:
    """The message of class ``model`` with these fields.

    Raises:
        WireError: a field is missing, unknown or wrong; the message begins with ``what`` and names the field.
    """
    try:
        return model.model_validate(fields)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise WireError(f"{what}: {'.'.join(map(str, first['loc']))!a:.60}: {first['msg']}") from None


def _unpack(data: bytes | bytearray | memoryview, limit: int, what: str, **lengths: int) -> Any:
    if len(data) > limit:
        raise WireError(f"{what}: {len(data)} bytes, but at most {limit} are accepted")
    hooks = {"object_pairs_hook": _fields, "ext_hook": _no_extension}
    try:
        return msgpack.unpackb(data, strict_map_key=True, **hooks, **(NOTHING | lengths))
    except ValueError as error:
        raise WireError(f"{what}: not well-formed msgpack ({error})") from None


def _fields(pairs: list[tuple[Any, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise WireError("a message holds the same field twice")
    for key, value in pairs:
        if not isinstance(key, str):
            raise WireError("a message holds a field whose name is not text")
        if isinstance(value, NESTED):
            raise WireError("a message holds a list or a map as a value; none of its fields is one")
    return fields


def _no_extension(code: int, _: bytes) -> None:
    raise WireError(f"a message holds the msgpack extension type {code}; none is allowed")
