"""The phases of a node and how one follows from another."""

from collections.abc import Mapping
from typing import Literal

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.gossip.actions import Action, Finish, Mix, Publish, Resend, Train
from flop_p2p.gossip.gathering import Gathering
from flop_p2p.gossip.mixing import masked_mean, mean, nothing, weighted_sum
from flop_p2p.gossip.outbox import Outbox
from flop_p2p.gossip.plan import Plan
from flop_p2p.gossip.view import View

Phase = Literal["starting", "training", "collecting", "gathering", "mixing", "catching-up", "done"]


class Phases:
    """Where a node is in its rounds, and what it does next with what it knows.

    Args:
        name: of the site.
        plan: with whom it exchanges.
        rounds: how many there are.
        round_index: the round to begin with, counted from 0.
        has_published: the body of that round is final and stored.
        first_round: of the revision that the site joined with.
        masked: neighbours declare masked bodies, and send them when they are asked for all of them together.
    """

    def __init__(
        self,
        name: str,
        plan: Plan,
        gossip: GossipSettings,
        rounds: int,
        *,
        round_index: int = 0,
        has_published: bool = False,
        first_round: int = 0,
        masked: bool = False,
    ) -> None:
        self.phase: Phase = "starting"
        self.absences: dict[str, list[int]] = {}
        self.catch_ups = 0
        self.stale_uses = 0
        self.start_waits = 0
        self.masked_skips: list[int] = []
        self._name = name
        self._gossip = gossip
        self._rounds = rounds
        self._first_round = first_round
        self._joins = round_index < first_round
        self._restarted = has_published or (round_index > 0 and not self._joins)
        self._view = View(
            name,
            plan,
            gossip,
            -1 if self._joins else round_index,
            published=round_index if has_published else -1,
            masked=masked,
        )
        self._masked = masked
        # before a restart masked bodies of this round may have been asked for, and answered: not again
        self._closed = round_index if masked and has_published else -1
        self._gathering = Gathering(self._closed)
        self._outbox = Outbox()
        self._running = False
        self._stopping = False
        self._trained = False  # and not yet published
        self._vain = -1  # round in which catching up was tried in vain
        self._overtime = False  # in the first round, for neighbours that have not begun
        self._mix: Mix | None = None

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The neighbours that the node is waiting for, ascending."""
        match self.phase:
            case "starting":
                return tuple(name for name in self._view.names if not self._is_ready(name))
            case "collecting" if self.plan.trains and not self._outbox.runs("deadline"):
                return tuple(name for name in self._view.names if not self._view.neighbours[name].gone)
            case "collecting":
                return self._view.awaited()
            case "gathering":
                return self._gathering.missing
            case "catching-up":
                return self._view.coming(self._view.behind)
            case _:
                return ()

    def _next(self) -> list[Action]:
        """Go as far as what is known allows, and hand out the actions."""
        before = None
        while self._running and before != (self.phase, self._view.round_index):
            before = (self.phase, self._view.round_index)
            match self.phase:
                case "starting" if not self.waiting_for:
                    self._begin()
                case "collecting":
                    self._collect()
                case "gathering" if not self.waiting_for:
                    self._end_gathering()
                case "catching-up" if not self.waiting_for:
                    self._end_catching_up()
        return self._outbox.take()

    # Starting

    def _is_ready(self, name: str) -> bool:
        """Whether there is nothing more to wait for from a neighbour before the first round."""
        if self._joins:
            return name in self._view.within_reach(self._first_round - 1)
        neighbour = self._view.neighbours[name]
        return neighbour.connected or (self._restarted and neighbour.greeted)

    def _end_starting(self) -> None:
        """The time for starting has passed: begin if enough neighbours are there, else wait once more."""
        if self._joins:
            enough = bool(self._view.within_reach(self._first_round - 1))
        else:
            enough = self._restarted or len(self._view.reachable()) >= self._gossip.min_neighbours
        if enough:
            self._begin()
        else:
            self._wait_to_start()

    def _wait_to_start(self) -> None:
        self.phase = "starting"
        self.start_waits += 1
        self._outbox.set_timer("start", self._gossip.start_timeout)

    def _begin(self) -> None:
        self._outbox.cancel_timer("start")
        for name in self._view.names:
            self._view.neighbours[name].given_up = not self._view.neighbours[name].greeted
        if not self._joins:
            self._catch_up_or_go_on()
        elif not self._catch_up(self._view.within_reach(self._first_round - 1)):
            self._wait_to_start()

    # Catching up

    def _catch_up_or_go_on(self) -> None:
        behind = self.plan.trains and self._view.further(self._view.behind)
        if behind and (self._vain < self._view.round_index or self._view.within_reach(self._view.behind)):
            self.phase = "catching-up"
            self._set_deadline()
        else:
            self._go_on()

    def _end_catching_up(self) -> None:
        self._outbox.cancel_timer("deadline")
        bodies = self._view.within_reach(self._view.behind)
        if not bodies or not self._catch_up(bodies):
            self._cannot_catch_up()

    def _catch_up(self, bodies: Mapping[str, int]) -> bool:
        """Take over these bodies; False if they are masked and no sum of them can be asked for, or one was in vain."""
        if not self._masked:
            self._begin_mixing(mean(self._view.round_index, bodies))
            return True
        mix = masked_mean(self.plan, self._view.round_index, bodies)
        tried = self._vain == self._view.round_index and not self._joins
        if possible := self._may_gather(mix) and not tried:
            self._gather(mix)
        return possible

    def _cannot_catch_up(self) -> None:
        self._vain = self._view.round_index
        if self._joins:
            self._wait_to_start()
        elif self._view.settled >= self._view.round_index:
            self._collected()
        else:
            self._go_on()

    # Training, publishing, collecting

    def _go_on(self) -> None:
        """Train, or publish what is trained, and collect."""
        if self._trained:
            self._publish()
        if self.plan.trains and self._view.settled < self._view.round_index:
            self.phase = "training"
            self._outbox.add(Train(self._view.round_index))
        elif self._closed == self._view.round_index:
            self._collected()
        else:
            self.phase = "collecting"
            if self.plan.trains:
                self._set_deadline()

    def _publish(self) -> None:
        self._view.published = self._view.round_index
        self._outbox.add(Publish(self._view.round_index, self._view.receivers()))

    def _collect(self) -> None:
        """Mix as soon as nothing is to be waited for."""
        if not self.plan.trains:
            self._wait_for_first_body()
        elif not self._view.nobody():
            self._set_deadline()  # it runs, unless an isolated node has been waiting for anyone to come back
        awaited = self._view.awaited()
        if self._outbox.runs("deadline") and (not awaited or (self._overtime and not self._view.reachable(awaited))):
            self._end_collecting()

    def _wait_for_first_body(self) -> None:
        """A server's deadline begins with the first body of the round. It goes where most of its sites have gone."""
        if self._view.any_here() or self._view.nobody_sends():
            self._set_deadline()
        elif bodies := self._view.within_reach(self._view.round_index):
            self.catch_ups += 1
            self._advance(max(bodies.values()))

    def _deadline_passed(self) -> None:
        """In the first round a neighbour may be waiting for its other neighbours, which it may for `start_timeout`."""
        first = self._view.round_index == 0 and self.plan.trains
        if first and not self._overtime and self._view.reachable(self.waiting_for):
            self._overtime = True
            self._outbox.set_timer("deadline", self._gossip.start_timeout)
        else:
            self._end_collecting()

    def _end_collecting(self) -> None:
        self._outbox.cancel_timer("deadline")
        bodies = self._view.within_reach(self._view.behind) if self.plan.trains else {}
        if bodies and self._catch_up(bodies):
            return
        if self._gossip.isolated == "train" or self._view.any_here() or not self._view.nobody():
            self._collected()

    def _collected(self) -> None:
        """What is here of the round is all that is waited for."""
        self._view.give_up_lost()
        mix = weighted_sum(self.plan, self._name, self._view.round_index, self._view.held())
        if not self._masked:
            self._end_round(mix)
        elif self._may_gather(mix):
            self._gather(mix)
        else:
            self._skip_round(mix)

    def _end_round(self, mix: Mix) -> None:
        for name in mix.absent:
            self.absences.setdefault(name, []).append(mix.round)
        self.stale_uses += sum(part.round < mix.round for part in mix.parts)
        self._begin_mixing(mix)

    # Masked gossip: what is held are declarations; the masked bodies of all who declared are asked for together

    def _may_gather(self, mix: Mix) -> bool:
        senders = self.plan.weights(mix.parts[0].round).keys() - {self._name} if mix.parts else ()
        return self._gathering.is_possible(mix, len(senders))

    def _gather(self, mix: Mix) -> None:
        self.phase = "gathering"
        self._view.inbox.use(mix.parts)
        self._gathering.begin(mix)
        self._outbox.add(self._gathering.ask(self._view.reachable(part.name for part in mix.parts)))
        self._set_deadline()

    def _end_gathering(self) -> None:
        """All masked bodies are here: their sum is what they were masked for."""
        self._outbox.cancel_timer("deadline")
        if (mix := self._gathering.end()) is not None:
            (self._begin_mixing if mix.catches_up else self._end_round)(mix)

    def _skip(self) -> None:
        """The masks do not cancel without all: go on without the sum. Nobody is asked to take a mask off."""
        self._outbox.cancel_timer("deadline")
        self._view.inbox.keep()
        mix = self._gathering.end()
        if mix is not None and mix.catches_up:
            for part in mix.parts:
                self._outbox.discard(self._view.inbox.take_out(part.name, part.round, "superseded"))
            self._cannot_catch_up()
        elif mix is not None:
            self._skip_round(mix)

    def _skip_round(self, mix: Mix) -> None:
        self.masked_skips.append(mix.round)
        self._end_round(nothing(mix))

    def _set_deadline(self) -> None:
        self._outbox.set_timer("deadline", self._gossip.deadline * self.plan.patience)

    # Mixing, and on to another round

    def _begin_mixing(self, mix: Mix) -> None:
        self.phase = "mixing"
        self._mix = mix
        self._view.inbox.use(mix.parts)
        self._outbox.add(mix)

    def _end_mixing(self, mix: Mix) -> None:
        self._mix = None
        self._view.inbox.release()
        if mix.catches_up:
            self.catch_ups += not self._joins
            self._joins = False
        if not self.plan.trains:
            self._publish()
        self._advance(max(part.round for part in mix.parts) + 1 if mix.catches_up else mix.round + 1)

    def _advance(self, round_index: int) -> None:
        """Enter another round, or finish."""
        self._trained = self._overtime = False
        before = set(self._view.names)
        self._view.round_index = round_index
        self._outbox.discard(self._view.clear_out())
        for name in self._view.reachable():
            if name not in before and self._view.lacks(name, self._view.neighbours[name].round, have=-1):
                self._outbox.add(Resend(name))
        if round_index >= self._rounds:
            self._finish()
        elif self._stopping:
            self.phase = "training" if self.plan.trains else "collecting"
            self._finish(complete=False)
        else:
            self._go_on()

    def _finish(self, complete: bool = True) -> None:
        self._outbox.cancel_timer("start")
        self._outbox.cancel_timer("deadline")
        self._running = False
        if complete:
            self.phase = "done"
            for name in self._view.inbox.names():
                self._outbox.discard(self._view.inbox.drop(name, "late"))
        self._outbox.add(Finish(complete))

    @property
    def plan(self) -> Plan:
        """With whom the node exchanges. It may be replaced; the new one holds from the next event on."""
        return self._view.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._view.plan = plan
