"""What a node says when it greets a neighbour, and whose greetings it accepts."""

import hashlib
import time
from collections.abc import Mapping
from typing import Any

from flop_p2p.config.federation import PROTOCOL_VERSION
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.identity.members import difference
from flop_p2p.node.membership import Membership
from flop_p2p.wire.messages import Greeting


class NodeGate:
    """The node's part of greetings.

    Args:
        schema_hash: SHA-256 of the body's schema, 32 bytes.
        body_hash: SHA-256 of the initial body before any training, 32 bytes.
    """

    def __init__(
        self, name: str, membership: Membership, protocol: RoundProtocol, schema_hash: bytes, body_hash: bytes
    ) -> None:
        self._name = name
        self._membership = membership
        self._protocol = protocol
        self._schema_hash = schema_hash
        self._body_hash = body_hash

    def greeting(self, name: str) -> Mapping[str, Any]:
        """All of a greeting to ``name`` but the keys of the session."""
        protocol = self._protocol
        return {
            "name": self._name,
            "protocol": PROTOCOL_VERSION,
            "federation": self._membership.own(protocol.round_index).canonical,
            "schema_hash": self._schema_hash,
            "body_hash": self._body_hash,
            "round": protocol.round_index,
            "have": protocol.have(name),
            "finished": protocol.phase == "done",
            "probe": False,
            "time": time.time(),
        }

    def refusal(self, name: str, greeting: Greeting) -> str | None:
        """Why this greeting of the authenticated member ``name`` is not accepted; None if it is."""
        theirs = hashlib.sha256(greeting.federation.encode()).hexdigest()
        if not self._membership.accepts(theirs, greeting.round):
            own = self._membership.own(self._protocol.round_index)
            return f"{name} holds another federation than {self._name}: {difference(own, greeting.federation)}"
        if greeting.schema_hash != self._schema_hash:
            return (
                f"{name} has a body of another schema than {self._name}, though their federations agree: another model"
            )
        if greeting.body_hash != self._body_hash:
            return f"{name} starts from other weights than {self._name}: another version of PyTorch, or of weights"
        return None
