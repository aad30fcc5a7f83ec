"""What happens to the connections of a socket: told apart so that a log can say why a neighbour is not reached."""

import asyncio

import zmq
import zmq.asyncio
from zmq.utils.monitor import recv_monitor_message

from flop_p2p.transport.routes import LinkError, RefusedError
from flop_p2p.transport.sockets import CONNECT_TIMEOUT, HANDSHAKE_TIMEOUT

CONNECTING = zmq.EVENT_CONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_CONNECT_RETRIED
FAILURES = zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
HANDSHAKE = zmq.EVENT_HANDSHAKE_SUCCEEDED | FAILURES | zmq.EVENT_DISCONNECTED


QUIET = 0.05  # seconds without a message after which a socket is taken to have been read to its end
MOST = 100  # messages that are waited for; a socket with many connections may never be quiet


class WrongKeyError(LinkError):
    """Whoever answers at the address does not hold the secret of the expected key."""


class Monitor:
    """The events of one socket. They must be read without delay: a full queue of them stops ZeroMQ itself.

    Args:
        wanted: mask of the events that are of interest.
    """

    def __init__(self, monitored: zmq.asyncio.Socket, wanted: int = CONNECTING | HANDSHAKE) -> None:
        self._monitored = monitored
        self._events = monitored.get_monitor_socket(wanted)

    def close(self) -> None:
        """Stop before the socket itself is closed."""
        self._monitored.disable_monitor()
        self._events.close(0)

    async def next(self) -> tuple[int, int]:
        """The next event and its value; where a connection came about or ended, its file descriptor."""
        message = await recv_monitor_message(self._events)
        return int(message["event"]), int(message["value"])

    async def until(self, wanted: int) -> int:
        """The next event of those in the mask ``wanted``."""
        while True:
            event, _ = await self.next()
            if event & wanted:
                return event

    async def settled(self) -> None:
        """After a connection has ended: wait until its last words, a goodbye perhaps, were read by whoever reads."""
        for _ in range(MOST):
            if not await self._monitored.poll(1000 * QUIET):
                break
            await asyncio.sleep(0)

    async def connected(self, where: str) -> None:
        """Wait until a dialling socket has its connection and the handshake behind it.

        Raises:
            LinkError: it has not, and why.
        """
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT):
                if await self.until(CONNECTING) != zmq.EVENT_CONNECTED:
                    raise LinkError(f"nobody listens at {where}")
        except TimeoutError:
            raise LinkError(f"no answer from {where} in {CONNECT_TIMEOUT:g} s") from None
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT):
                event = await self.until(HANDSHAKE)
        except TimeoutError:
            raise LinkError(f"{where} accepts connections but does not speak in {HANDSHAKE_TIMEOUT:g} s") from None
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            raise RefusedError(f"{where} does not accept our key: it is not in the federation file there")
        if event != zmq.EVENT_HANDSHAKE_SUCCEEDED:
            raise WrongKeyError(f"{where} does not hold the expected key, or is no node of a federation")
