"""The side that is dialled: one socket for the messages of all neighbours, and one for their frames."""

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field

import zmq
import zmq.asyncio

from flop_p2p.errors import TransportError, WireError
from flop_p2p.transport.authentication import MemberAuthenticator
from flop_p2p.transport.base import TransportKeys
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import Link
from flop_p2p.transport.monitor import Monitor
from flop_p2p.transport.outgoing import WINDOW
from flop_p2p.transport.session import Session, make_session, refusal, welcome
from flop_p2p.transport.sockets import LinkError, Route, Way, bind, bulk_server, curve_server
from flop_p2p.wire import AnyMessage, FrameHeader, Hello, KeyExchange, Ready, Refuse, Unknown

SETTLE = 0.05  # seconds from a disconnection until the socket knows which one it was
PAUSE = 0.5  # seconds between looks at who is gone, however many strangers come and go


@dataclass
class Pending:
    """A session whose welcome is on its way. Frames may overtake the ready that follows; a window of them is held."""

    session: Session
    way: Way
    held: list[tuple[bytes, memoryview]] = field(default_factory=list)


class Listener:
    """Accepts the neighbours that dial this node.

    Attributes:
        strange_frames: frames on the bulk socket from nobody who was greeted, dropped.
    """

    def __init__(
        self,
        hub: Hub,
        links: Mapping[str, Link],
        authenticator: MemberAuthenticator,
        context: zmq.asyncio.Context,
        keys: TransportKeys,
    ) -> None:
        self.strange_frames = 0
        self._hub, self._links, self._authenticator = hub, links, authenticator
        self._control = curve_server(context, keys)
        self._bulk = bulk_server(context) if hub.gossip.bulk == "sealed" else self._control
        self._monitor = Monitor(self._control)
        self._pending: dict[str, Pending] = {}

    def open(self, listen: str, bulk_listen: str | None) -> None:
        """Bind and begin to read.

        Raises:
            TransportError: an address cannot be used.
        """
        if self._bulk is not self._control:
            if bulk_listen is None:
                raise TransportError('no address to listen at for bodies; give bulk_listen, or gossip.bulk = "curve"')
            bind(self._bulk, bulk_listen)
            self._hub.spawn(self._read_bulk())
        bind(self._control, listen)
        self._hub.spawn(self._read_control())
        self._hub.spawn(self._watch())

    def close(self) -> None:
        """Close the sockets."""
        self._monitor.close()
        self._control.close()
        self._bulk.close()

    async def _read_control(self) -> None:
        while True:
            routing_id, *parts = await self._control.recv_multipart(copy=False)
            link = self._sender(parts)
            if link is None:
                continue
            try:
                self._take(link, routing_id.bytes, [part.buffer for part in parts])
            except WireError as error:
                link.drop(str(error))

    def _sender(self, parts: list[zmq.Frame]) -> Link | None:
        """The neighbour whose key ZAP authenticated; None where it is no neighbour any more."""
        key = parts[0].get("User-Id") if parts else None
        name = self._authenticator.member(key) if isinstance(key, str) else None
        return self._links.get(name) if name is not None else None

    def _take(self, link: Link, routing_id: bytes, parts: list[memoryview]) -> None:
        route = Route(self._control, (routing_id,))
        if len(parts) == 2 and self._bulk is self._control:
            if link.way is not None and link.way.control == route:
                link.frame(bytes(parts[0]), parts[1])
            return
        if len(parts) != 1:
            raise WireError(f"a message of {len(parts)} parts")
        try:
            message = self._hub.read(link.name, parts[0], link.status)
        except WireError as error:
            if link.way is None:
                self._refuse(link, route, str(error))
            raise
        self._message(link, route, message)

    def _message(self, link: Link, route: Route, message: AnyMessage) -> None:
        pending = self._pending.get(link.name)
        if isinstance(message, Hello):
            self._greeted(link, route, message)
        elif isinstance(message, Refuse):
            self._pending.pop(link.name, None)
            link.fail(f"refuses this node: {message.reason}", refused=True)
        elif isinstance(message, Ready) and pending is not None and pending.way.control == route:
            if message.session == pending.session.id:
                self._ready(link, pending)
        elif link.way is not None and link.way.control == route:
            link.message(message)
        elif not isinstance(message, Unknown):
            self._post(link, route, Unknown())

    def _greeted(self, link: Link, route: Route, hello: Hello) -> None:
        reason = refusal(self._hub, link.name, hello)
        if reason is None and self._hub.leaving:
            reason = f"{self._hub.name} is leaving"
        if reason is None and link.peer.dials and not hello.probe:
            reason = f"{self._hub.name} dials {link.name}, not the other way round; compare the addresses"
        if reason is not None:
            self._refuse(link, route, reason)
            return
        exchange = KeyExchange()
        answer = welcome(self._hub, link.name, exchange, session=hello.session)
        if not hello.probe:
            bulk = route if self._bulk is self._control else Route(self._bulk, (hello.bulk_id,))
            session = make_session(self._hub, link.name, exchange, hello)
            self._pending[link.name] = Pending(session, Way(route, bulk))
        self._post(link, route, answer)

    def _ready(self, link: Link, pending: Pending) -> None:
        del self._pending[link.name]

        def ended() -> None:
            if link.status.state == "lost":
                self._post(link, pending.way.control, Unknown())

        link.establish(pending.session, pending.way, ended=ended)
        for header, sealed in pending.held:
            link.frame(header, sealed)

    def _refuse(self, link: Link, route: Route, reason: str) -> None:
        link.fail(reason, refused=True)
        self._post(link, route, Refuse(reason=reason))

    def _post(self, link: Link, route: Route, message: AnyMessage) -> None:
        with suppress(LinkError):  # whoever asked is gone already
            self._hub.post(link.name, message, route, link.status)

    async def _read_bulk(self) -> None:
        while True:
            routing_id, *parts = await self._bulk.recv_multipart(copy=False)
            if len(parts) != 2:
                self.strange_frames += 1
                continue
            self._frame(Route(self._bulk, (routing_id.bytes,)), bytes(parts[0].buffer[:1024]), parts[1].buffer)

    def _frame(self, route: Route, header: bytes, sealed: memoryview) -> None:
        for pending in self._pending.values():
            if pending.way.bulk == route and _session_of(header) == pending.session.id:
                if len(pending.held) < WINDOW:
                    pending.held.append((header, sealed))
                return
        for link in self._links.values():
            if link.way is not None and link.way.bulk == route:
                link.frame(header, sealed)
                return
        self.strange_frames += 1

    async def _watch(self) -> None:
        """When a connection ends, find out whose by sending a sign of life to all."""
        while True:
            await self._monitor.until(zmq.EVENT_DISCONNECTED)
            await asyncio.sleep(SETTLE)
            for link in list(self._links.values()):
                link.ping()
            await asyncio.sleep(PAUSE)


def _session_of(header: bytes) -> bytes | None:
    try:
        return FrameHeader.decode(header).session
    except WireError:
        return None
