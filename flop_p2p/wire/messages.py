"""The messages of the control channel, and nothing else that may be sent: a closed list.

A message travels as msgpack ``[version, chain, payload]``: ``payload`` is the msgpack map of its fields, ``chain``
the hash of the sender's egress log line about it (32 bytes), which the receiver keeps as a receipt.
"""

from typing import Annotated, Literal, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from flop_p2p.config.federation import PROTOCOL_VERSION, SiteName
from flop_p2p.wire.participants import MAX_LIST_BYTES, SIGNATURE_BYTES

WIRE_VERSION = PROTOCOL_VERSION
MAX_CONTROL_BYTES = 1 << 20  # a hello carries the whole federation file; everything else is tiny
SESSION_BYTES = 8
REASON_CHARACTERS = 1000


def _one_line(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:REASON_CHARACTERS])


Digest = Annotated[bytes, Field(min_length=32, max_length=32)]
Session = Annotated[bytes, Field(min_length=SESSION_BYTES, max_length=SESSION_BYTES)]
Round = Annotated[int, Field(ge=-1, le=2**31)]  # -1: none yet
Line = Annotated[str, AfterValidator(_one_line)]  # for people to read: made printable and cut, never refused


class Message(BaseModel):
    """What all messages share: strict types, no unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Greeting(Message):
    """What two neighbours tell each other before anything else.

    name: of the sender, compared with the name that its authenticated key belongs to.
    federation: its canonical form, so that a difference can be named.
    schema_hash, body_hash: of the body's schema and of the initial body before any training.
    protocol: version that the sender speaks, for a refusal that names it.
    round: that the sender is in, counted from 0.
    have: round of the receiver's latest body that the sender holds or has mixed, -1 if none.
    finished: the sender has completed all rounds and only serves its last body.
    probe: only a check whether the connection works; the sender's node is not running.
    time: the sender's clock, seconds since 1970.
    public_key: fresh X25519 public key for the bulk channel.
    bulk_id: random routing id under which the dialling side will send on the bulk channel (empty from the other).
    session: random id of the session's keys, chosen by the dialling side and repeated by the other.
    """

    name: SiteName
    protocol: int
    federation: str = Field(max_length=MAX_CONTROL_BYTES // 2)
    schema_hash: Digest
    body_hash: Digest
    round: Round
    have: Round
    finished: bool
    probe: bool
    time: FiniteFloat
    public_key: Digest
    bulk_id: bytes = Field(max_length=32)
    session: Session


class Hello(Greeting):
    """First message of the dialling side; sent again to renew the session's keys."""

    kind: Literal["hello"] = "hello"


class Welcome(Greeting):
    """Answer to a hello that is accepted."""

    kind: Literal["welcome"] = "welcome"


class Ready(Message):
    """Last word of the dialling side: both sides have the keys; from now on they are used."""

    kind: Literal["ready"] = "ready"
    session: Session


class Refuse(Message):
    """Why a greeting is not accepted, for people to read. Characters that cannot be printed become ``?``."""

    kind: Literal["refuse"] = "refuse"
    reason: Line


class Unknown(Message):
    """Answer to anything but a hello from a member without a session: greet me again."""

    kind: Literal["unknown"] = "unknown"


class Heartbeat(Message):
    """Sign of life. ``echo`` is the sent time of the heartbeat answered, 0 if this is not an answer."""

    kind: Literal["heartbeat"] = "heartbeat"
    round: Round
    sent: FiniteFloat
    echo: FiniteFloat


class Credit(Message):
    """So many more chunks may be sent: flow control of the bulk channel."""

    kind: Literal["credit"] = "credit"
    chunks: int = Field(ge=1, le=1024)


class Receipt(Message):
    """A body arrived complete, authentic and finite. ``chain`` is the hash of the sender's egress line about it."""

    kind: Literal["receipt"] = "receipt"
    round: Round
    chain: Digest


class Goodbye(Message):
    """Do not wait for me: I sent bodies up to ``last_round`` and leave until I greet again."""

    kind: Literal["goodbye"] = "goodbye"
    last_round: Round
    finished: bool


class Silence(Message):
    """Do not wait for bodies of mine from ``round`` on: my privacy budget is spent. I go on receiving."""

    kind: Literal["silence"] = "silence"
    round: Round


class Present(Message):
    """Masked gossip: I have a body of this round for the sum of those that reach you.

    key: X25519 public key, made for this receiver and round alone.
    signature: Ed25519, by the member key, over federation, receiver, round, the sender's name and ``key``.
    """

    kind: Literal["present"] = "present"
    round: Round
    key: Digest
    signature: bytes = Field(min_length=SIGNATURE_BYTES, max_length=SIGNATURE_BYTES)


class Participants(Message):
    """Masked gossip: those who declared themselves present to me; mask your body for all of them and send it.

    participants: see `flop_p2p.wire.participants`.
    """

    kind: Literal["participants"] = "participants"
    round: Round
    participants: bytes = Field(max_length=MAX_LIST_BYTES)


class Decline(Message):
    """Masked gossip: no masked body of this round comes from me, whatever I declared before."""

    kind: Literal["decline"] = "decline"
    round: Round
    reason: Line


AnyMessage = Annotated[
    Hello
    | Welcome
    | Ready
    | Refuse
    | Unknown
    | Heartbeat
    | Credit
    | Receipt
    | Goodbye
    | Silence
    | Present
    | Participants
    | Decline,
    Field(discriminator="kind"),
]
KINDS = (*(kind.model_fields["kind"].default for kind in get_args(get_args(AnyMessage)[0])), "body")
