"""What a transport does for a node, whatever carries the bytes: greet neighbours, deliver bodies, notice losses."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from flop_p2p.wire.encodings import Bytes, Encoding, Masked
from flop_p2p.wire.messages import Decline, Greeting, Participants, Present

Body = NDArray[np.float32]  # [parameters], contiguous, never written again after it was handed over


@dataclass(frozen=True)
class TransportKeys:
    """A node's own CURVE keys in Z85, 40 bytes each."""

    public: bytes
    secret: bytes = field(repr=False)


@dataclass(frozen=True)
class Peer:
    """A neighbour as the transport sees it.

    curve_keys: its public CURVE keys in Z85: the current one and, while a key is rotated, the next.
    control, bulk: its endpoints (``tcp://host:port``) as seen from here; needed where this node dials.
    dials: this node dials the neighbour; otherwise it waits to be dialled.
    """

    name: str
    curve_keys: tuple[str, ...]
    control: str | None
    bulk: str | None
    dials: bool


@dataclass(frozen=True)
class Connected:
    """A neighbour's greeting was accepted and ours by it. May come again without a `Lost` between."""

    name: str
    greeting: Greeting


@dataclass(frozen=True)
class Lost:
    """A neighbour can no longer be reached."""

    name: str
    reason: str


@dataclass(frozen=True)
class Left:
    """A neighbour said goodbye: it sent bodies up to ``last_round`` and is not to be waited for."""

    name: str
    last_round: int
    finished: bool


@dataclass(frozen=True)
class Silent:
    """A neighbour sends no body of ``round`` or a later one, and goes on receiving."""

    name: str
    round: int


@dataclass(frozen=True)
class Progress:
    """A heartbeat: the neighbour is in ``round``."""

    name: str
    round: int


@dataclass(frozen=True)
class BodyReceived:
    """A body came complete, authenticated, finite and with the right schema. The receiver owns it.

    participants: hash of the list that a masked one was masked for.
    """

    name: str
    round: int
    body: Body | Masked = field(repr=False, compare=False)
    participants: bytes = b""


@dataclass(frozen=True)
class Delivered:
    """A neighbour acknowledged our body of ``round``."""

    name: str
    round: int


@dataclass(frozen=True)
class Said:
    """A neighbour sent a message of masked gossip."""

    name: str
    message: Present | Participants | Decline


Event = Connected | Lost | Left | Silent | Progress | BodyReceived | Delivered | Said


@dataclass(frozen=True)
class Payload:
    """One way to send a body.

    data: float32 ``[parameters]``, or the bytes of another encoding.
    sha256: of the bytes.
    base: round of the body that this one changes; -1 if none.
    participants: hash of the list that it is masked for; empty if it is not masked.
    """

    data: Body | Bytes | Masked = field(repr=False, compare=False)
    sha256: bytes
    encoding: Encoding = "float32"
    base: int = -1
    participants: bytes = b""


@dataclass(frozen=True)
class OutgoingBody:
    """A finished body as it is sent to every neighbour, hashed once; a masked one is for one neighbour.

    body, sha256, encoding, participants: see `Payload`.
    changes: what is sent instead to whoever has got the body that they change.
    """

    round: int
    body: Body | Bytes | Masked = field(repr=False, compare=False)
    sha256: bytes
    encoding: Encoding = "float32"
    changes: Payload | None = None
    participants: bytes = b""

    def payload(self, told: int | None) -> Payload:
        """What to send to whoever holds this site's body of round ``told``; None for nobody's."""
        if self.changes is not None and self.changes.base == told:
            return self.changes
        return Payload(self.body, self.sha256, self.encoding, participants=self.participants)


@dataclass
class LinkStatus:
    """One neighbour as `flop-p2p status` shows it. Times in seconds (``last_contact`` since 1970), sizes in bytes."""

    state: Literal["connecting", "connected", "lost", "refused", "left"] = "connecting"
    reason: str = ""
    last_contact: float | None = None
    latency: float | None = None
    sent_bytes: int = 0
    received_bytes: int = 0
    dropped_frames: int = 0
    clock_skew: float | None = None


class Egress(Protocol):
    """The log that every message must pass before it leaves; the node's keeps it on disk.

    ``round_index`` is -1 for messages that belong to no round.
    """

    def record(
        self, receiver: str, kind: str, round_index: int, size: int, sha256: bytes, *, durable: bool = True
    ) -> bytes:
        """Write one line and return its hash (32 bytes), the chain that travels with the message.

        Args:
            durable: the line of a message with a receipt survives a loss of power once this returns; without, once
                `sync` has returned, and until then the message may not leave.

        Raises:
            EgressError: the line cannot be written; then nothing may be sent.
        """

    def sync(self) -> bytes:
        """Wait until all lines so far would survive a loss of power; the hash of the last. Any thread may call it.

        Raises:
            EgressError: they would not; then nothing may be sent.
        """

    def receipt(self, sender: str, kind: str, round_index: int, chain: bytes) -> None:
        """Keep the chain hash that came with a neighbour's message."""


class Gate(Protocol):
    """What the transport asks the node about greetings."""

    def greeting(self, name: str) -> Mapping[str, Any]:
        """The node's part of a greeting to ``name``: all fields but ``public_key``, ``bulk_id`` and ``session``."""

    def refusal(self, name: str, greeting: Greeting) -> str | None:
        """Why the greeting of the authenticated member ``name`` is not accepted; None if it is."""


class Transport(Protocol):
    """Carries bodies and signs of life between a node and its neighbours."""

    async def open(self) -> None:
        """Bind and begin to dial.

        Raises:
            TransportError: an address cannot be used.
        """

    async def next_event(self) -> Event:
        """The next event; waits for one.

        Raises:
            EgressError: the egress log cannot be written; nothing leaves any more.
        """

    def send(self, name: str, outgoing: OutgoingBody) -> None:
        """Queue a body for a connected neighbour; of several that wait for one neighbour only the newest is sent.

        A body for a neighbour that is not connected is ignored: it is sent again after `Connected`. The body must
        not be written to any more.
        """

    def say(self, name: str, message: Present | Participants | Decline) -> None:
        """Send a message of masked gossip to a connected neighbour; for one that is not it is ignored."""

    def free(self, body: Body | Masked) -> None:
        """The node needs a body that it received no more: the next one may be written over it."""

    def set_round(self, round_index: int, soon: Collection[str] = ()) -> None:
        """The round that heartbeats tell; where it is another than before, one leaves at once to each neighbour.

        Args:
            soon: neighbours that are sent a body of this round soon, which tells them as much; they can wait for it.
        """

    def silence(self, round_index: int) -> bool:
        """Tell every neighbour, also one that connects later, that no body of this round or a later one comes.

        Returns:
            False if that was told before.
        """

    def update_peers(self, peers: Sequence[Peer]) -> None:
        """Replace the neighbours, their keys and addresses; a link whose neighbour only got a further key stays."""

    async def goodbye(self, last_round: int, finished: bool, timeout: float | None = None) -> None:
        """Tell every connected neighbour that this node leaves, after what is queued for it was sent.

        Args:
            last_round: that this node published a body of.
            finished: it has completed all rounds.
            timeout: seconds that queued bodies may still take; None leaves it to the transport.

        Raises:
            EgressError: the egress log cannot be written; nothing was said.
        """

    async def close(self) -> None:
        """Close all sockets; nothing is received any more."""

    def links(self) -> dict[str, LinkStatus]:
        """The state of every neighbour, by name."""
