"""Who may connect: the members' keys and no others (ZAP, https://rfc.zeromq.org/spec/27)."""

import logging
from collections.abc import Iterable

import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from flop_p2p.transport.base import Peer
from flop_p2p.transport.sockets import ZAP_DOMAIN

logger = logging.getLogger(__name__)

MAX_STRANGERS = 1000  # unknown keys that are remembered, so that each is logged once


class MemberAuthenticator(AsyncioAuthenticator):
    """Lets the keys of members pass the handshake. The user id of a connection is its key, not a name that it chose.

    `member` says on every message whose key it is, so that a key that was removed loses its rights at once.
    """

    def __init__(self, context: zmq.asyncio.Context, peers: Iterable[Peer]) -> None:
        super().__init__(context)
        self._members: dict[str, str] = {}
        self._strangers: set[str] = set()
        self.configure_curve_callback(ZAP_DOMAIN.decode(), self)
        self.update(peers)

    def update(self, peers: Iterable[Peer]) -> None:
        """Replace the keys that may connect."""
        self._members = {key: peer.name for peer in peers for key in peer.curve_keys}

    def member(self, key: str) -> str | None:
        """The name of the member whose public key (Z85) this is."""
        return self._members.get(key)

    def callback(self, _domain: str, key: bytes) -> bool:
        """ZAP's question whether ``key`` (Z85) may connect."""
        text = key.decode("ascii")
        if text in self._members:
            return True
        if text not in self._strangers and len(self._strangers) < MAX_STRANGERS:
            self._strangers.add(text)
            logger.warning("refused a connection: the key %s is no neighbour's", text)
        return False
