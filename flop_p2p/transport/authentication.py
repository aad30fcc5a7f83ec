"""Who may connect: the members' keys and no others (ZAP, https://rfc.zeromq.org/spec/27)."""

import logging
from collections.abc import Mapping

import zmq.asyncio
from zmq.auth.asyncio import AsyncioAuthenticator

from flop_p2p.transport.link import Link
from flop_p2p.transport.sockets import ZAP_DOMAIN

logger = logging.getLogger("flop_p2p.transport")

MAX_STRANGERS = 1000  # unknown keys that are remembered, so that each is logged once


class MemberAuthenticator(AsyncioAuthenticator):
    """Lets the keys of neighbours pass the handshake. The user id of a connection is its key, not a name it chose.

    `member` says on every message whose key it is, so that a key that was removed loses its rights at once.

    Args:
        context: whose sockets ask this authenticator.
        links: the neighbours by name; the owner changes them.
    """

    def __init__(self, context: zmq.asyncio.Context, links: Mapping[str, Link]) -> None:
        super().__init__(context)
        self._links = links
        self._strangers: set[str] = set()
        self.configure_curve_callback(ZAP_DOMAIN.decode(), self)

    def member(self, key: str) -> Link | None:
        """The neighbour whose public key (Z85) this is."""
        return next((link for link in self._links.values() if key in link.peer.curve_keys), None)

    def callback(self, _domain: str, key: bytes) -> bool:
        """ZAP's question whether ``key`` (Z85) may connect."""
        text = key.decode("ascii")
        if self.member(text) is not None:
            return True
        if text not in self._strangers and len(self._strangers) < MAX_STRANGERS:
            self._strangers.add(text)
            logger.warning("refused a connection: the key %s is no neighbour's", text)
        return False
