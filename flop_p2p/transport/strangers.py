"""Who knocks at this node's ports without being a neighbour: counted, and each address logged once."""

import logging
import os
import socket
from contextlib import suppress

import zmq

from flop_p2p.transport.monitor import FAILURES

logger = logging.getLogger("flop_p2p.transport")

WATCHED = zmq.EVENT_ACCEPTED | FAILURES | zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED
UNKNOWN = "an unknown address"
MAX_LOGGED = 1000  # lines, one for each address and port


class Strangers:
    """Strange things that came to the ports.

    Attributes:
        frames: that came to the bulk port from nobody who was greeted.
        connections: to the control port that ended before a handshake had succeeded, but for refused keys.
    """

    def __init__(self) -> None:
        self.frames = self.connections = 0
        self._logged: set[str] = set()
        self._open: dict[int, tuple[str, int]] = {}  # by file descriptor: address, successes before it came
        self._successes = 0  # handshakes, whose ever
        self._failure: int | None = None  # the event just before, if it was one

    def frame(self, address: str) -> None:
        """A frame of nobody's came to the bulk port."""
        self.frames += 1
        self._log(address, "a frame came to the port for bodies, but nobody there was greeted")

    def event(self, event: int, value: int) -> None:
        """Take an event of the control port.

        What happens to handshakes is told without the connection. A failure is told just before its disconnection, or
        not at all where the first bytes were rubbish; then no handshake succeeded since the connection came.
        """
        failure, self._failure = self._failure, event if event & FAILURES else None
        if event == zmq.EVENT_ACCEPTED:
            self._open[value] = _address(value), self._successes
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            self._successes += 1
        elif event == zmq.EVENT_DISCONNECTED:
            address, successes = self._open.pop(value, (UNKNOWN, -1))
            failed = failure is not None or successes == self._successes
            if failed and failure != zmq.EVENT_HANDSHAKE_FAILED_AUTH:  # the authenticator logs keys that it refuses
                self.connections += 1
                self._log(address, "whoever connects to the port for messages does not speak as a node does")

    def _log(self, address: str, what: str) -> None:
        line = f"from {address}: {what}"
        if line not in self._logged and len(self._logged) < MAX_LOGGED:
            self._logged.add(line)
            logger.warning("%s", line)


def _address(descriptor: int) -> str:
    """The other end of a connection that is ZeroMQ's; it may be closed already."""
    try:
        copy = os.dup(descriptor)
    except OSError:
        return UNKNOWN
    try:
        connection = socket.socket(fileno=copy)
    except OSError:
        os.close(copy)
        return UNKNOWN
    with connection, suppress(OSError):
        return str(connection.getpeername()[0])
    return UNKNOWN
