"""Masked bodies between the round protocol and the transport, see `flop_p2p.gossip.masking`.

What the protocol takes for a body that arrived is here a declaration that its sender is present. The body itself comes
when the protocol asks all who declared themselves present; a site answers beside the event loop and the training.
"""

import asyncio
import functools
import hashlib
from collections.abc import Callable, Sequence

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from flop_p2p.config import FederationSettings
from flop_p2p.errors import WireError
from flop_p2p.gossip.actions import Action, Ask, Mix
from flop_p2p.gossip.fixed_point import FixedPoint
from flop_p2p.gossip.masking import Declarations, Neighbourhood, Pad, mask
from flop_p2p.gossip.mixing import nothing
from flop_p2p.gossip.protocol import RoundProtocol
from flop_p2p.node.courier import Courier, Work, logger, refused
from flop_p2p.node.declared import Declared
from flop_p2p.node.journal import Journal
from flop_p2p.node.worker import SiteModel
from flop_p2p.transport.base import Body, BodyReceived, OutgoingBody, Said, Transport
from flop_p2p.wire.encodings import Masked
from flop_p2p.wire.messages import Decline, Participants, Present
from flop_p2p.wire.participants import Participant, pack, unpack

MOST_REFUSED = 8  # lists of one receiver that are refused with a word until the next body is published
ROUNDS_HELD = 2  # latest own bodies that can still be asked for: a receiver is at most one round behind


class MaskedCourier(Courier):
    """Declares bodies to their receivers, sends each masked for those that the receiver names, and mixes sums.

    Args:
        signing: the member key of the site.
        federation: the revision that holds in a round.
        signing_keys: the public keys that a member may sign with in a round.
        fixed_point: how numbers are written.
        declared: the rounds of which bodies were declared before a restart. Which lists were answered then is
            forgotten, so none is answered now.
    """

    def __init__(
        self,
        protocol: RoundProtocol,
        model: SiteModel,
        transport: Transport,
        journal: Journal,
        work: Work[OutgoingBody],
        *,
        signing: Ed25519PrivateKey,
        federation: Callable[[int], FederationSettings],
        signing_keys: Callable[[str, int], tuple[bytes, ...]],
        fixed_point: FixedPoint,
        declared: Declared,
    ) -> None:
        super().__init__(protocol, model, transport, journal, work)
        self._federation, self._signing_keys = federation, signing_keys
        self._held, self._id = federation(0), federation(0).id
        self._fixed_point = fixed_point
        self._record = declared
        self._declarations = Declarations(model.name, signing)
        self._own: dict[int, Body] = {}
        self._declared: dict[tuple[str, int], Participant] = {}  # by others to this site
        self._asked: tuple[int, bytes] = (-1, b"")  # round and hash of the list that bodies are gathered for
        self._gathered: dict[str, Masked] = {}
        self._answers: dict[tuple[str, int], bytes] = {}  # lists answered over the connection that there is
        self._refused: set[tuple[str, int]] = set()  # receivers and rounds of which it was said that nothing comes
        self._doubted: set[str] = set()  # whose wrong declarations were told of in the log
        self._tasks: set[asyncio.Task[None]] = set()

    async def restore(self, round_index: int) -> None:
        """Nothing is ready to be sent: see ``declared``."""

    async def publish(self, round_index: int, receivers: Sequence[str]) -> None:
        """Store the body, keep a copy of it, and declare it; see `Courier.publish`."""
        body = (await self._work(functools.partial(self._store, round_index))).body.view(np.float32)
        self._own = {held: self._own[held] for held in sorted(self._own)[1 - ROUNDS_HELD :]} | {round_index: body}
        self._declarations.forget(min(self._own))
        self._answers = {place: digest for place, digest in self._answers.items() if place[1] in self._own}
        self._refused = set()
        for name in receivers:
            self._declare_or_decline(name, round_index)

    def pass_over(self, round_index: int) -> None:
        """Nothing is declared in this round."""

    def resend(self, name: str) -> None:
        """Declare the latest body once more, or say that none of its round comes."""
        self._declare_or_decline(name, self._protocol.published)

    def connected(self, name: str) -> None:
        """What was sent over an earlier connection may be lost: the same list is answered again."""
        self._answers = {place: digest for place, digest in self._answers.items() if place[0] != name}
        self._refused = {place for place in self._refused if place[0] != name}
        if 0 <= self._protocol.published <= self._record.before:
            self.resend(name)

    def arrived(self, event: BodyReceived) -> list[Action]:
        """A masked body came: keep it if it was masked for the list that was asked for."""
        if (event.round, event.participants) != self._asked or event.name in self._gathered:
            logger.info("masked body of %s for round %d not used: it is late", event.name, event.round + 1)
            self._transport.free(event.body)
            return []
        self._gathered[event.name] = event.body.view(np.uint32)
        return self._protocol.masked_body_arrived(event.name, event.round)

    def said(self, event: Said) -> list[Action]:
        """A neighbour declares itself present, asks for a masked body, or takes a declaration back."""
        match event.message:
            case Present(round=round_index, key=key, signature=signature):
                return self._present(Participant(event.name, key, signature), round_index)
            case Decline(round=round_index, reason=reason):
                logger.info("%s sends no body of round %d: %s", event.name, round_index + 1, reason)
                return self._protocol.declined(event.name, round_index)
            case Participants():
                self._spawn_answer(event.name, event.message)
                return []

    def ask(self, action: Ask) -> None:
        """Send the list of those present to all of them, or again to those whose masked body is missing."""
        participants = [self._declared[name, action.round] for name in action.participants]
        digest = self._neighbourhood(self._model.name, action.round).digest(participants)
        if self._asked != (action.round, digest):
            self._asked, self._gathered = (action.round, digest), {}
        message = Participants(round=action.round, participants=pack(participants))
        for name in action.receivers:
            self._transport.say(name, message)

    def drop(self, name: str, round_index: int) -> None:
        """A declaration is of no use any more; nor is the body that was sent for it."""
        self._declared.pop((name, round_index), None)
        if round_index == self._asked[0] and name in self._gathered:
            self._transport.free(self._gathered.pop(name))

    def mix(self, action: Mix) -> Mix:
        """Mix the sum of the masked bodies into the model's body, in the thread that computes; what was mixed."""
        if not action.parts:
            return action
        round_index = action.parts[0].round
        weights = self._protocol.plan.weights(round_index)
        share = sum(weights[part.name] for part in action.parts)
        factor = sum(part.weight for part in action.parts) / share
        parts = [self._gathered[part.name] for part in action.parts]
        try:
            self._model.mix_masked(self._fixed_point, action.own_weight, parts, share, factor)
        except WireError as error:
            logger.warning("round %d is not mixed: %s", round_index + 1, error)
            return nothing(action)
        if action.catches_up:
            self._model.reset_optimizer()
        return action

    def _present(self, participant: Participant, round_index: int) -> list[Action]:
        try:
            self._neighbourhood(self._model.name, round_index).check(participant)
        except WireError as error:
            if participant.name not in self._doubted:
                self._doubted.add(participant.name)
                logger.warning("declaration of %s not used: %s", participant.name, error)
            return []
        actions = self._protocol.body_arrived(participant.name, round_index)
        refusal = refused(actions, participant.name, round_index)
        if refusal is None:
            self._declared[participant.name, round_index] = participant
        else:
            actions.remove(refusal)
        return actions

    def _declare_or_decline(self, name: str, round_index: int) -> None:
        if round_index <= self._record.before:
            reason = "this node restarted, and does not know which lists of participants it has answered"
            self._transport.say(name, Decline(round=round_index, reason=reason))
        elif round_index in self._own and name in self._protocol.plan.receivers(round_index):
            declared = self._declarations.declare(self._neighbourhood(name, round_index))
            message = Present(round=round_index, key=declared.key, signature=declared.signature)
            self._transport.say(name, message)

    def _neighbourhood(self, receiver: str, round_index: int) -> Neighbourhood:
        federation = self._federation(round_index)
        if federation is not self._held:
            self._held, self._id = federation, federation.id
        weights = self._protocol.plan.weights_of(receiver, round_index)
        keys = {name: self._signing_keys(name, round_index) for name in weights if name != receiver}
        return Neighbourhood(self._id, receiver, round_index, keys)

    def _spawn_answer(self, receiver: str, message: Participants) -> None:
        """Answer a list once for a connection: to be asked again and again must not keep this site busy."""
        place = (receiver, message.round)
        refused = sum(each == receiver for each, _ in self._refused)
        if place in self._refused or (place not in self._answers and refused >= MOST_REFUSED):
            return
        try:
            if message.round not in self._own or receiver not in self._protocol.plan.receivers(message.round):
                raise WireError(f"no body of round {message.round + 1} is kept for {receiver}")
            neighbourhood = self._neighbourhood(receiver, message.round)
            digest, pads = self._declarations.answer(neighbourhood, unpack(message.participants))
        except WireError as error:
            self._refused.add(place)
            logger.warning("list of participants of %s not answered: %s", receiver, error)
            self._transport.say(receiver, Decline(round=message.round, reason=str(error)))
            return
        if self._answers.get(place) == digest:
            return
        self._answers[place] = digest
        weight = self._protocol.plan.weights_of(receiver, message.round)[self._model.name]
        job = functools.partial(self._masked, message.round, self._own[message.round], weight, digest, pads)
        task = asyncio.get_running_loop().create_task(self._answer(receiver, job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, receiver: str, job: Callable[[], OutgoingBody]) -> None:
        self._transport.send(receiver, await asyncio.get_running_loop().run_in_executor(None, job))

    def _masked(self, round_index: int, body: Body, weight: float, digest: bytes, pads: Sequence[Pad]) -> OutgoingBody:
        integers = self._fixed_point.encode(body, weight)
        mask(integers, pads)
        sha256 = hashlib.sha256(integers.data).digest()
        return OutgoingBody(round_index, integers, sha256, "masked", participants=digest)

    def _store(self, round_index: int) -> OutgoingBody:
        """As `Courier._store`; a body that cannot be masked is refused before anything is said of it."""
        body = self._model.copy_of_body()
        self._fixed_point.check(body)
        self._journal.save("published", round_index)
        self._record.declare(max(round_index, self._record.before))
        return OutgoingBody(round_index, body, b"")
