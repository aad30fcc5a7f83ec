"""One greeting to one neighbour, to see whether both ports are reached and the two would accept each other."""

import asyncio
import secrets
import time
from dataclasses import dataclass

import zmq.asyncio

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.errors import WireError
from flop_p2p.transport.base import Egress, Gate, LinkStatus, Peer, TransportKeys
from flop_p2p.transport.connection import Connection, connect
from flop_p2p.transport.conversation import GREETING_TIMEOUT
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.routes import LinkError
from flop_p2p.transport.session import hello, refusal
from flop_p2p.wire import AnyMessage, KeyExchange, Refuse, Welcome
from flop_p2p.wire.messages import SESSION_BYTES


@dataclass(frozen=True)
class ProbeResult:
    """What came of a probe.

    reached: a running node that holds the neighbour's key answered, and the bulk channel was reached too.
    accepted: both would accept each other's greeting.
    reason: why not, empty otherwise.
    latency: seconds from the greeting to the answer; None where none came.
    clock_skew: seconds by which the neighbour's clock is ahead; None where it did not tell its time.
    """

    name: str
    reached: bool
    accepted: bool
    reason: str = ""
    latency: float | None = None
    clock_skew: float | None = None


async def probe(
    peer: Peer,
    *,
    name: str,
    keys: TransportKeys,
    gate: Gate,
    egress: Egress,
    gossip: GossipSettings,
    proxy: str | None,
) -> ProbeResult:
    """Connect to ``peer`` as the node ``name`` and greet it with ``probe`` set; it keeps no session.

    Raises:
        EgressError: the greeting cannot be recorded; it was not sent.
    """
    hub = Hub(
        name=name,
        gate=gate,
        egress=egress,
        schema_hash=bytes(32),
        parameters=1,
        gossip=gossip,
    )
    context = zmq.asyncio.Context()
    try:
        async with connect(context, keys, peer, sealed=gossip.bulk == "sealed", proxy=proxy) as connection:
            return await _greet(hub, peer, connection)
    except LinkError as error:
        return ProbeResult(peer.name, reached=False, accepted=False, reason=str(error))
    finally:
        await asyncio.to_thread(context.term)


async def _greet(hub: Hub, peer: Peer, connection: Connection) -> ProbeResult:
    session = secrets.token_bytes(SESSION_BYTES)
    greeting = hello(hub, peer.name, KeyExchange(), bulk_id=connection.bulk_id, session=session)
    started = time.monotonic()
    hub.post(peer.name, greeting.model_copy(update={"probe": True}), connection.way.control, LinkStatus())
    try:
        async with asyncio.timeout(GREETING_TIMEOUT):
            frames = await connection.sockets[0].recv_multipart(copy=False)
        answer = hub.read(peer.name, [frame.buffer for frame in frames], LinkStatus())
    except TimeoutError:
        raise LinkError(f"no answer to the greeting in {GREETING_TIMEOUT:g} s") from None
    except WireError as error:
        return ProbeResult(peer.name, reached=True, accepted=False, reason=str(error))
    return _judge(hub, peer, answer, latency=time.monotonic() - started)


def _judge(hub: Hub, peer: Peer, answer: AnyMessage, *, latency: float) -> ProbeResult:
    reason: str | None = f"answered a greeting with a {answer.kind} message"
    skew = None
    if isinstance(answer, Refuse):
        reason = f"refuses this node: {answer.reason}"
    elif isinstance(answer, Welcome):
        reason = refusal(hub, peer.name, answer)
        skew = answer.time + latency / 2 - time.time()
    return ProbeResult(peer.name, True, reason is None, reason or "", latency, skew)
