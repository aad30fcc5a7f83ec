"""Bodies between the round protocol and the transport: which one leaves, which ones wait to be mixed."""

import functools
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

import numpy as np

from flop_p2p.gossip.actions import Action, Ask, Discard, Mix
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.node.journal import Journal
from flop_p2p.node.worker import SiteModel
from flop_p2p.transport.base import Body, BodyReceived, OutgoingBody, Said, Transport

logger = logging.getLogger("flop_p2p.node")
Result = TypeVar("Result")
Work = Callable[[Callable[[], Result]], Awaitable[Result]]


class Courier:
    """Sends a body as it is to all its receivers, and keeps those that came until they are mixed.

    Its methods run on the event loop, but for `mix`.

    Args:
        work: runs a job in the thread that computes, and waits for it.
    """

    def __init__(
        self,
        protocol: RoundProtocol,
        model: SiteModel,
        transport: Transport,
        journal: Journal,
        work: Work[OutgoingBody],
    ) -> None:
        self._protocol = protocol
        self._model = model
        self._transport = transport
        self._journal = journal
        self._work = work
        self._outgoing: OutgoingBody | None = None
        self._bodies: dict[tuple[str, int], Body] = {}

    async def restore(self, round_index: int) -> None:
        """The body of this round was published before a restart: have it ready to be sent again.

        Raises:
            TrainingError: it cannot be sent.
        """
        self._outgoing = await self._work(functools.partial(self._model.publish, round_index))

    async def publish(self, round_index: int, receivers: Sequence[str]) -> None:
        """The body is final: store it before its first byte leaves, then send it.

        Raises:
            TrainingError: it cannot be sent.
            NodeError: it cannot be stored.
        """
        self._outgoing = await self._work(functools.partial(self._store, round_index))
        for name in receivers:
            self._transport.send(name, self._outgoing)

    def pass_over(self, round_index: int) -> None:
        """Nothing leaves in this round. With compression, bodies are still mixed relative to what would have."""
        self._model.publish(round_index)

    def resend(self, name: str) -> None:
        """Send the latest body to a neighbour once more."""
        if self._outgoing is not None:
            self._transport.send(name, self._outgoing)

    def connected(self, name: str) -> None:
        """A neighbour greeted."""

    def arrived(self, event: BodyReceived) -> list[Action]:
        """A body came. Unless the protocol discards it, it is kept until it is mixed."""
        name, round_index = event.name, event.round
        actions = self._protocol.body_arrived(name, round_index)
        refusal = refused(actions, name, round_index)
        if refusal is not None:
            logger.info("body of %s for round %d not used: %s", name, round_index + 1, refusal.reason)
            actions.remove(refusal)  # what is held under this name and round, if anything, is another copy
            self._transport.free(event.body)
            return actions
        self._bodies[name, round_index] = event.body.view(np.float32)
        return actions

    def said(self, event: Said) -> list[Action]:  # noqa: ARG002
        """A neighbour sent a message of masked gossip; here the transport lets none through."""
        return []

    def ask(self, action: Ask) -> None:
        """Masked gossip: ask for masked bodies."""

    def drop(self, name: str, round_index: int) -> None:
        """A body is needed no more."""
        body = self._bodies.pop((name, round_index), None)
        if body is not None:
            self._transport.free(body)

    def mix(self, action: Mix) -> Mix:
        """Mix what is kept into the model's body, in the thread that computes; what was mixed."""
        parts = [(part.name, part.weight, self._bodies[part.name, part.round]) for part in action.parts]
        if action.catches_up:
            self._model.take_over(parts)
        else:
            self._model.mix(self._model.name, action.own_weight, parts)
        return action

    def _store(self, round_index: int) -> OutgoingBody:
        outgoing = self._model.publish(round_index)
        self._journal.save("published", round_index)
        return outgoing


def refused(actions: Sequence[Action], name: str, round_index: int) -> Discard | None:
    """The action that discards what has just come from a neighbour for this round, if there is one."""
    discarded = (action for action in actions if isinstance(action, Discard))
    return next((each for each in discarded if (each.name, each.round) == (name, round_index)), None)
