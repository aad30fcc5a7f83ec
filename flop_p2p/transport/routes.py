"""Where messages and frames for one neighbour go, and what goes wrong on the way."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, cast

import zmq
import zmq.asyncio

from flop_p2p.errors import TransportError

Part = bytes | memoryview


class LinkError(TransportError):
    """A neighbour cannot be reached, or not any more. It is reported as an event, never raised to the user."""


class RefusedError(LinkError):
    """A neighbour, or this node, does not accept the other's greeting."""


class Route(Protocol):
    """One direction of one connection. Two routes are equal when they lead over the same connection."""

    def send(self, parts: Sequence[Part]) -> None:
        """Send a message of these parts without waiting. Large parts are not copied and must not change before they
        have arrived.

        Raises:
            LinkError: nobody takes the message.
        """


@dataclass(frozen=True)
class SocketRoute:
    """A ZeroMQ socket and, on a ROUTER, the routing id of one connection."""

    socket: zmq.asyncio.Socket
    prefix: tuple[bytes, ...] = ()

    def send(self, parts: Sequence[Part]) -> None:
        """See `Route.send`."""
        try:
            sending = self.socket.send_multipart([*self.prefix, *parts], flags=zmq.DONTWAIT, copy=False)
            cast("asyncio.Future[None]", sending).result()  # without waiting it is done at once
        except zmq.Again:
            raise LinkError("takes no more messages") from None
        except zmq.ZMQError as error:
            raise LinkError("the connection is gone" if error.errno == zmq.EHOSTUNREACH else str(error)) from None


@dataclass(frozen=True)
class Way:
    """The connection to one neighbour: a route for messages and one for frames (the same if CURVE carries both)."""

    control: Route
    bulk: Route
