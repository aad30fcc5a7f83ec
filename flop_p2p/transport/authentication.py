"""Who may connect (ZAP, https://rfc.zeromq.org/spec/27): members' keys and no others, and few to the bulk port.

Frames on the bulk port are sealed, so that it does not matter who brings them; but strangers must not take all room.
"""

import logging
from collections.abc import Mapping

import zmq
import zmq.asyncio
from zmq.auth.base import Authenticator
from zmq.utils import z85

from flop_p2p.transport.link import Link
from flop_p2p.transport.sockets import ZAP_DOMAIN

logger = logging.getLogger("flop_p2p.transport")

MAX_STRANGERS = 1000  # unknown keys that are remembered, so that each is logged once
MAX_BULK = 64  # bulk connections; further ones only from addresses that a member's key was seen at
MAX_ADDRESSES = 1000  # such addresses


class MemberAuthenticator(Authenticator):
    """Lets the keys of neighbours pass the handshake. The user id of a connection is its key, not a name it chose.

    `member` says on every message whose key it is, so that a key that was removed loses its rights at once.

    Args:
        context: whose sockets ask this authenticator.
        links: the neighbours by name; the owner changes them.

    Attributes:
        bulk_connections: file descriptors of the connections to the bulk port; the listener keeps them.
    """

    def __init__(self, context: zmq.asyncio.Context, links: Mapping[str, Link]) -> None:
        super().__init__(context)
        self._links = links
        self.bulk_connections: set[int] = set()
        self._strangers: set[str] = set()
        self._addresses: set[bytes] = set()
        self.configure_curve_callback(ZAP_DOMAIN.decode(), self)

    def member(self, key: str) -> Link | None:
        """The neighbour whose public key (Z85) this is."""
        return next((link for link in self._links.values() if key in link.peer.curve_keys), None)

    async def serve(self) -> None:
        """Answer ZAP's questions, once `start` was called. Whatever ends this, nobody can connect any more."""
        poller = zmq.asyncio.Poller()
        poller.register(self.zap_socket, zmq.POLLIN)
        while True:
            await poller.poll()
            await self.handle_zap_message(self.zap_socket.recv_multipart())

    async def handle_zap_message(self, msg: list[bytes]) -> None:
        """One question of ZAP: version, request id, domain, address, identity, mechanism and, with CURVE, the key."""
        if len(msg) == 6 and len(self.bulk_connections) > MAX_BULK and msg[3] not in self._addresses:
            self._send_zap_reply(msg[1], b"400", b"too many connections")
            return
        known = len(msg) == 7 and self.member(z85.encode(msg[6]).decode()) is not None
        if known and len(self._addresses) < MAX_ADDRESSES:
            self._addresses.add(msg[3])
        await super().handle_zap_message(msg)

    def callback(self, _domain: str, key: bytes) -> bool:
        """ZAP's question whether ``key`` (Z85) may connect."""
        text = key.decode("ascii")
        if self.member(text) is not None:
            return True
        if text not in self._strangers and len(self._strangers) < MAX_STRANGERS:
            self._strangers.add(text)
            logger.warning("refused a connection: the key %s is no neighbour's", text)
        return False
