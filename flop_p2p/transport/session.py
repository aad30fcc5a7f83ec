"""Greetings: what two neighbours tell and check before anything else, and the keys that come of it."""

import hashlib
import time
from dataclasses import dataclass

from flop_p2p.config.federation import PROTOCOL_VERSION
from flop_p2p.transport.hub import Hub
from flop_p2p.wire import (
    ClearOpener,
    ClearSealer,
    FrameOpener,
    FrameSealer,
    Greeting,
    Hello,
    KeyExchange,
    Welcome,
)


@dataclass(frozen=True)
class Session:
    """Keys for the frames of both directions, and the neighbour's greeting that they came with."""

    id: bytes
    greeting: Greeting
    sealer: FrameSealer
    opener: FrameOpener


def hello(hub: Hub, name: str, exchange: KeyExchange, *, bulk_id: bytes, session: bytes) -> Hello:
    """This node's first word to ``name``."""
    return Hello(**hub.gate.greeting(name), public_key=exchange.public, bulk_id=bulk_id, session=session)


def welcome(hub: Hub, name: str, exchange: KeyExchange, *, session: bytes) -> Welcome:
    """This node's answer to ``name``."""
    return Welcome(**hub.gate.greeting(name), public_key=exchange.public, bulk_id=b"", session=session)


def refusal(hub: Hub, name: str, greeting: Greeting) -> str | None:
    """Why the greeting that came with the key of ``name`` is not accepted; None if it is."""
    if greeting.name != name:
        return f"the key is that of {name}, but the greeting says {greeting.name}"
    if greeting.protocol != PROTOCOL_VERSION:
        return f"{name} speaks version {greeting.protocol}, {hub.name} speaks version {PROTOCOL_VERSION}"
    return hub.gate.refusal(name, greeting)


def make_session(hub: Hub, name: str, exchange: KeyExchange, greeting: Greeting, first: Hello) -> Session:
    """The session that both greetings decide.

    Its keys are bound to the federation that the dialling side told: while a revision is being taken up, the two
    sides may be in different ones, and yet they must come to the same keys.

    Args:
        greeting: of the neighbour.
        first: the hello, whose ever it was.

    Raises:
        WireError: the neighbour's public key cannot be used.
    """
    if hub.gossip.bulk == "curve":
        return Session(greeting.session, greeting, ClearSealer(greeting.session), ClearOpener(greeting.session))
    federation = hashlib.sha256(first.federation.encode()).hexdigest()
    sealer, opener = exchange.derive(
        greeting.public_key, own=hub.name, peer=name, federation=federation, session=greeting.session
    )
    return Session(greeting.session, greeting, sealer, opener)


def clock_skew(greeting: Greeting) -> float:
    """Seconds by which the neighbour's clock is ahead of ours."""
    return greeting.time - time.time()
