"""The side that is dialled, whatever carries the bytes: answers greetings, keeps sessions and their frames apart."""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

from flop_p2p.errors import WireError
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import Link
from flop_p2p.transport.outgoing import WINDOW
from flop_p2p.transport.routes import LinkError, Route, Way
from flop_p2p.transport.session import Session, make_session, refusal, welcome
from flop_p2p.wire import AnyMessage, FrameHeader, Hello, KeyExchange, Ready, Refuse, Unknown


@dataclass
class Pending:
    """A session whose welcome is on its way. Frames may overtake the ready that follows; a window of them is held."""

    session: Session
    way: Way
    held: list[tuple[bytes, memoryview]] = field(default_factory=list)


class Acceptor:
    """Greets the neighbours that dial this node.

    Args:
        links: by name; the owner changes them.
        bulk_route: the route for frames, given the bulk id of the hello; None where they take that of the messages.
    """

    def __init__(self, hub: Hub, links: Mapping[str, Link], bulk_route: Callable[[bytes], Route] | None) -> None:
        self._hub, self._links, self._bulk_route = hub, links, bulk_route
        self._pending: dict[str, Pending] = {}

    def take(self, link: Link, route: Route, parts: Sequence[memoryview]) -> None:
        """Take what came from the authenticated neighbour of ``link``; ``route`` leads back.

        Raises:
            EgressError: an answer cannot be recorded.
        """
        if len(parts) == 2 and self._bulk_route is None:
            if not self.frame(route, bytes(parts[0]), parts[1]):
                link.answer(Unknown(), route)
            return
        try:
            if (message := link.read(parts)) is not None:
                self._message(link, route, message)
        except WireError as error:
            link.drop(str(error))
            if link.way is None:
                self._refuse(link, route, str(error))

    def frame(self, route: Route, header: bytes, sealed: memoryview) -> bool:
        """Take a frame from the bulk connection to which ``route`` leads back; False if it is nobody's."""
        for pending in self._pending.values():
            if pending.way.bulk == route and _session_of(header) == pending.session.id:
                if len(pending.held) < WINDOW:
                    pending.held.append((header, sealed))
                return True
        for link in self._links.values():
            if link.way is not None and link.way.bulk == route:
                link.frame(header, sealed)
                return True
        return False

    def _message(self, link: Link, route: Route, message: AnyMessage) -> None:
        pending = self._pending.get(link.name)
        if isinstance(message, Hello):
            self._greeted(link, route, message)
        elif isinstance(message, Refuse):
            self._refused(link, route, f"refuses this node: {message.reason}")
        elif isinstance(message, Ready) and pending is not None and pending.way.control == route:
            if message.session == pending.session.id:
                self._ready(link, pending)
        elif link.way is not None and link.way.control == route:
            link.message(message)
        elif not isinstance(message, Unknown):
            link.answer(Unknown(), route)

    def _greeted(self, link: Link, route: Route, hello: Hello) -> None:
        way = Way(route, route if self._bulk_route is None else self._bulk_route(hello.bulk_id))
        reason = refusal(self._hub, link.name, hello)
        if reason is None and self._hub.leaving:
            reason = f"{self._hub.name} is leaving"
        if reason is None and link.peer.dials and not hello.probe:
            reason = f"{self._hub.name} dials {link.name}, not the other way round; compare the addresses"
        if reason is None and self._taken(way.bulk, link.name):
            reason = "the bulk id is another neighbour's"
        if reason is not None:
            self._refuse(link, route, reason)
            return
        exchange = KeyExchange()
        answer = welcome(self._hub, link.name, exchange, session=hello.session)
        if not hello.probe:
            self._pending[link.name] = Pending(make_session(self._hub, link.name, exchange, hello, hello), way)
        with suppress(LinkError):  # whoever asked is gone already
            self._hub.post(link.name, answer, route, link.status)

    def _taken(self, bulk: Route, name: str) -> bool:
        ways = {link.name: link.way for link in self._links.values()}
        waiting = {other: pending.way for other, pending in self._pending.items()}
        return any(
            way is not None and way.bulk == bulk and other != name
            for found in (ways, waiting)
            for other, way in found.items()
        )

    def _ready(self, link: Link, pending: Pending) -> None:
        del self._pending[link.name]

        def ended() -> None:
            if link.status.state == "lost":
                link.answer(Unknown(), pending.way.control)

        link.establish(pending.session, pending.way, ended=ended)
        for header, sealed in pending.held:
            link.frame(header, sealed)

    def _refused(self, link: Link, route: Route, reason: str) -> None:
        pending = self._pending.get(link.name)
        if pending is not None and pending.way.control == route:
            del self._pending[link.name]
        if link.way is not None and link.way.control == route:
            link.lose(reason)
        link.fail(reason, refused=True)

    def _refuse(self, link: Link, route: Route, reason: str) -> None:
        link.fail(reason, refused=True)
        link.answer(Refuse(reason=reason), route)


def _session_of(header: bytes) -> bytes | None:
    try:
        return FrameHeader.decode(header).session
    except WireError:
        return None
