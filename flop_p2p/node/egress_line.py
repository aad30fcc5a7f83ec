"""What a line of the egress log and of the receipts holds, and how large a message of each kind may be."""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from flop_p2p.config.federation import SiteName
from flop_p2p.errors import EgressError
from flop_p2p.wire.messages import KINDS, MAX_CONTROL_BYTES
from flop_p2p.wire.participants import MAX_LIST_BYTES

GENESIS = bytes(32)  # what stands for the hash of the line before the first
MAX_LINE = 4096  # bytes of a line; two names of 64 characters, escaped, leave half of it

SMALL_MESSAGE = 256
MAX_PAYLOAD = dict.fromkeys(KINDS, SMALL_MESSAGE) | {
    "hello": MAX_CONTROL_BYTES,  # carries the federation file
    "welcome": MAX_CONTROL_BYTES,
    "refuse": 8192,  # a reason of at most 1000 characters
    "decline": 8192,
    "participants": MAX_LIST_BYTES + SMALL_MESSAGE,
}

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Kind = Annotated[str, Field(pattern=r"^[a-z]{1,20}$")]  # of what shape; `objection` knows which ones there are
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00$")]


class Line(BaseModel):
    """Strict types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class EgressLine(Line):
    """One message that left the site, or was about to.

    number: of the line, counted from 1 over all files of the log.
    time: when it was written, ISO 8601 in UTC.
    round: counted from 0 as on the wire; -1 where the message belongs to none.
    schema_hash: of the body's schema; None for all other kinds. In the file: ``schema``.
    size: of the body, or of the control message's payload, in bytes. In the file: ``bytes``.
    sha256: of the same, before encryption.
    previous: SHA-256 of the line before, of its exact bytes without the newline.
    """

    number: int
    time: Time
    sender: SiteName
    receiver: SiteName
    round: int
    kind: Kind
    schema_hash: Hash | None = Field(alias="schema")
    size: int = Field(alias="bytes")
    sha256: Hash
    previous: Hash


class ReceiptLine(Line):
    """One message that a neighbour sent: ``chain`` is the hash of the line in the neighbour's log."""

    time: Time
    sender: SiteName
    receiver: SiteName
    round: int
    kind: Kind
    chain: Hash


def parse_egress_line(line: bytes, where: str) -> EgressLine:
    """The content of a line of the egress log.

    Raises:
        EgressError: it is something else; the message begins with ``where``.
    """
    try:
        return EgressLine.model_validate_json(line)
    except ValidationError as error:
        raise EgressError(f"{where}: {_reason(error, 'egress log')}") from None


def parse_receipt_line(line: bytes, where: str) -> ReceiptLine:
    """The content of a line of the receipts; raises like `parse_egress_line`."""
    try:
        return ReceiptLine.model_validate_json(line)
    except ValidationError as error:
        raise EgressError(f"{where}: {_reason(error, 'receipts')}") from None


def _reason(error: ValidationError, log: str) -> str:
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    if not first["loc"]:
        return f"not a line of the {log}: not a JSON object"
    key = ".".join(str(part) for part in first["loc"])
    kind = {"extra_forbidden": "unknown key", "missing": "missing key"}.get(first["type"])
    return f"not a line of the {log}: " + (f"{kind} {key!a:.60}" if kind else f"{key!a:.60}: {first['msg']}")


def objection(kind: str, size: int, sizes: Sequence[int] | None) -> str | None:
    """Why a message of this kind may not have ``size`` bytes; None if it may.

    Args:
        sizes: bytes that a body may take; None if the schema is not known, and then no body is allowed.
    """
    if kind not in MAX_PAYLOAD:
        return f"{kind!a:.60} is not a kind of message that may leave; those are {', '.join(KINDS)}"
    if kind != "body":
        largest = MAX_PAYLOAD[kind]
        return None if 0 <= size <= largest else f"a {kind} message has at most {largest} bytes, this one {size}"
    if sizes is None:
        return "there is no schema.json that says what a body holds"
    expected = " or ".join(map(str, sizes))
    return None if size in sizes else f"a body has {expected} bytes by its schema, this one {size}"
