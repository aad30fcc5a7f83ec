"""The round protocol: what a node does when. Events come in, actions go out; no sockets, clocks or training inside.

A round is local training, publishing the body, collecting the neighbours' bodies, mixing. A server trains nothing
and publishes what it mixed. The phases:

    starting -> training -> collecting -> mixing -> training of the next round, or done
        starting or training -> catching-up -> mixing, or on as without it
"""

from collections import Counter
from collections.abc import Iterable
from typing import Literal

from flop_p2p.config.federation import GossipSettings
from flop_p2p.errors import NodeError
from flop_p2p.gossip.actions import (
    Action,
    CancelTimer,
    Discard,
    Finish,
    Mix,
    Publish,
    Resend,
    SetTimer,
    Timer,
    Train,
)
from flop_p2p.gossip.mixing import mean, weighted_sum
from flop_p2p.gossip.plan import Plan
from flop_p2p.gossip.view import View

Phase = Literal["starting", "training", "collecting", "mixing", "catching-up", "done"]


class RoundProtocol:
    """The rounds of one node.

    Every method that tells of an event returns the actions that follow from it, to be carried out in their order.

    Args:
        name: of the site.
        plan: with whom it exchanges.
        rounds: how many there are.
        round_index: the round to begin with, counted from 0.
        has_published: the body of that round is final and stored: it is published again, and not trained again.
        first_round: of the revision that the site joined with. Before it the site only waits for its neighbours to
            come to this round, and then begins with the mean of their bodies.

    Attributes:
        absences: rounds in which a neighbour's body was missing, by name.
        discarded: received bodies that were not mixed, by reason.
        catch_ups: how often rounds were skipped because the neighbours were further.
        stale_uses: bodies of an earlier round that were mixed in place of missing ones.
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
    ) -> None:
        self.phase: Phase = "starting"
        self.absences: dict[str, list[int]] = {}
        self.discarded: Counter[str] = Counter()
        self.catch_ups = 0
        self.stale_uses = 0
        self._name = name
        self._gossip = gossip
        self._rounds = rounds
        self._first_round = first_round
        self._joins = round_index < first_round
        self._restarted = has_published or (round_index > 0 and not self._joins)
        self._view = View(name, plan, gossip, -1 if self._joins else round_index)
        self._view.published = round_index if has_published else -1
        self._running = False
        self._stopping = False
        self._trained = False  # and not yet published
        self._vain = -1  # round in which catching up was tried in vain
        self._mix: Mix | None = None
        self._timers: set[Timer] = set()
        self._actions: list[Action] = []

    @property
    def plan(self) -> Plan:
        """With whom the node exchanges. It may be replaced; the new one holds from the next event on."""
        return self._view.plan

    @plan.setter
    def plan(self, plan: Plan) -> None:
        self._view.plan = plan

    @property
    def round_index(self) -> int:
        """The round that the node is in: -1 before a site that joins later takes part, ``rounds`` after the last."""
        return self._view.round_index

    @property
    def published(self) -> int:
        """Round of the latest published body, -1 if none."""
        return self._view.published

    @property
    def waiting_for(self) -> tuple[str, ...]:
        """The neighbours that the node is waiting for, ascending."""
        match self.phase:
            case "starting":
                return tuple(name for name in self._view.names if not self._is_ready(name))
            case "collecting":
                return self._view.missing()
            case "catching-up":
                return self._view.coming(self._view.behind)
            case _:
                return ()

    def have(self, name: str) -> int:
        """Round of the latest body of a neighbour that is held or was mixed; -1 if none."""
        return self._view.inbox.latest(name)

    def known_round(self, name: str) -> int:
        """The round that a neighbour is in, as far as is known; -1 if nothing is."""
        return self._view.neighbours[name].round

    # Events of the network. In a phase in which one makes no sense it changes nothing.

    def connected(self, name: str, round_index: int, have: int, finished: bool) -> list[Action]:
        """A neighbour greeted: it is in ``round_index`` and has our body of round ``have`` (-1: none)."""
        neighbour = self._view.neighbours[name]
        neighbour.greets(round_index, have, finished)
        neighbour.promised = round_index - 1 > max(self.round_index, self.have(name))
        if (self._running or self.phase == "done") and self._view.lacks(name, round_index, have):
            self._actions.append(Resend(name))
        if self.phase == "collecting" and self.plan.trains and name in self._view.names:
            self._set_deadline()  # it runs, unless the node was waiting without end for anyone to come back
        return self._next()

    def lost(self, name: str) -> list[Action]:
        """A neighbour can no longer be reached."""
        self._view.neighbours[name].lose()
        return self._next()

    def left(self, name: str, last_round: int, finished: bool) -> list[Action]:
        """A neighbour said goodbye: no body of a later round than ``last_round`` comes before it greets again."""
        self._view.neighbours[name].leaves(last_round, finished)
        return self._next()

    def progress(self, name: str, round_index: int) -> list[Action]:
        """A heartbeat told a neighbour's round."""
        self._view.neighbours[name].tells(round_index)
        return self._next()

    def body_arrived(self, name: str, round_index: int) -> list[Action]:
        """A body came. It is held until a `Mix` uses it or a `Discard` names it, at most two of a neighbour."""
        known = name in self.plan.neighbours(max(round_index, self.round_index))
        if not known or not 0 <= round_index < self._rounds:
            self._discard([Discard(name, round_index, "unexpected")])
        elif self.phase == "done":
            self._discard([Discard(name, round_index, "late")])
        else:
            self._view.neighbours[name].sends(round_index)
            self._discard(self._view.inbox.add(name, round_index, self.round_index))
        return self._next()

    # Events of the driver

    def start(self) -> list[Action]:
        """Begin, or go on after a restart.

        Raises:
            NodeError: it was started before.
        """
        if self._running or self.phase != "starting":
            raise NodeError(f"the rounds were started twice, now in phase {self.phase}")
        self._running = True
        if self.published >= 0:
            self._publish()
            self._view.round_index += not self.plan.trains  # a server publishes at the end of a round
        if self.round_index >= self._rounds:
            self._finish()
        else:
            self._set_timer("start", self._gossip.start_timeout)
        return self._next()

    def trained(self) -> list[Action]:
        """The training of this round is complete.

        Raises:
            NodeError: nothing is being trained.
        """
        if self._running and self.phase != "training":
            raise NodeError(f"a training ended that was not begun, in round {self.round_index}, phase {self.phase}")
        if self._running:
            self._trained = True
            self._catch_up_or_go_on()
        return self._next()

    def mixed(self) -> list[Action]:
        """The mixing that was asked for is complete.

        Raises:
            NodeError: nothing is being mixed.
        """
        if self._mix is None:
            raise NodeError(f"a mixing ended that was not begun, in round {self.round_index}, phase {self.phase}")
        mix, self._mix = self._mix, None
        self._view.inbox.release()
        if not self.plan.trains:
            self._publish()
        self._advance(max(part.round for part in mix.parts) + 1 if mix.catches_up else self.round_index + 1)
        return self._next()

    def timer(self, timer: Timer) -> list[Action]:
        """A timer is due. One that is not set (any more) changes nothing."""
        if timer in self._timers:
            self._timers.discard(timer)
            match self.phase:
                case "starting" if self._may_begin():
                    self._begin()
                case "starting":
                    self._set_timer("start", self._gossip.start_timeout)
                case "collecting":
                    self._end_collecting()
                case "catching-up":
                    self._end_catching_up()
        return self._next()

    def stop(self) -> list[Action]:
        """Finish soon: after the mixing where bodies are being exchanged, else at once."""
        self._stopping = True
        exchanging = self.phase == "mixing" or (self.phase == "collecting" and "deadline" in self._timers)
        if self._running and not exchanging:
            self._finish(complete=False)
        return self._next()

    # From one phase to the next

    def _next(self) -> list[Action]:
        """Go as far as what is known allows, and hand out the actions."""
        before = None
        while self._running and before != (self.phase, self.round_index):
            before = (self.phase, self.round_index)
            match self.phase:
                case "starting" if not self.waiting_for:
                    self._begin()
                case "collecting" if not self.plan.trains and not self._may_average():
                    pass
                case "collecting" if not self.waiting_for:
                    self._end_collecting()
                case "catching-up" if not self.waiting_for:
                    self._end_catching_up()
        actions, self._actions = self._actions, []
        return actions

    def _is_ready(self, name: str) -> bool:
        """Whether there is nothing more to wait for from a neighbour before the first round."""
        neighbour = self._view.neighbours[name]
        if self._joins:
            return name in self._view.within_reach(self._first_round - 1)
        return neighbour.connected or (self._restarted and neighbour.greeted)

    def _may_begin(self) -> bool:
        """Whether to begin though not all neighbours are ready."""
        if self._joins:
            return bool(self._view.within_reach(self._first_round - 1))
        connected = self._view.neighbours.connected(self._view.names)
        return self._restarted or len(connected) >= self._gossip.min_neighbours

    def _begin(self) -> None:
        self._cancel_timer("start")
        if self._joins:
            self._catch_up(self._view.within_reach(self._first_round - 1))
        else:
            self._catch_up_or_go_on()

    def _catch_up_or_go_on(self) -> None:
        behind = self.plan.trains and self._view.leaders(self._view.behind)
        if behind and (self._vain < self.round_index or self._view.within_reach(self._view.behind)):
            self.phase = "catching-up"
            self._set_deadline()
        else:
            self._go_on()

    def _go_on(self) -> None:
        """Train, or publish what is trained, and collect."""
        if self._trained:
            self._publish()
        if self.plan.trains and self.published < self.round_index:
            self.phase = "training"
            self._actions.append(Train(self.round_index))
        else:
            self.phase = "collecting"
            if self.plan.trains:
                self._set_deadline()

    def _publish(self) -> None:
        self._trained = False
        self._view.published = self.round_index
        self._actions.append(Publish(self.round_index, self._view.receivers()))

    def _may_average(self) -> bool:
        """Whether a server has something to average; its deadline begins with the first body of the round."""
        if self._view.any_here() or self._view.all_gone():
            self._set_deadline()
        elif further := self._view.within_reach(self.round_index):
            self.catch_ups += 1
            self._advance(max(further.values()))
        return "deadline" in self._timers

    def _end_collecting(self) -> None:
        self._cancel_timer("deadline")
        further = self._view.within_reach(self._view.behind)
        held = self._view.held()
        if self.plan.trains and further:
            self._catch_up(further)
        elif self._gossip.isolated == "train" or self._view.any_here() or not self._view.nobody():
            self._view.give_up_lost()
            mix = weighted_sum(self.plan, self._name, self.round_index, held)
            for name in mix.absent:
                self.absences.setdefault(name, []).append(self.round_index)
            self.stale_uses += sum(part.round < self.round_index for part in mix.parts)
            self._begin_mixing(mix)

    def _end_catching_up(self) -> None:
        self._cancel_timer("deadline")
        if further := self._view.within_reach(self._view.behind):
            self._catch_up(further)
        else:
            self._vain = self.round_index
            self._go_on()

    def _catch_up(self, bodies: dict[str, int]) -> None:
        self.catch_ups += not self._joins
        self._joins = False
        self._begin_mixing(mean(self.round_index, bodies))

    def _begin_mixing(self, mix: Mix) -> None:
        self.phase = "mixing"
        self._mix = mix
        self._view.inbox.use(mix.parts)
        self._actions.append(mix)

    def _advance(self, round_index: int) -> None:
        """Enter another round, or finish."""
        before = set(self._view.names)
        self._view.round_index = round_index
        self._discard(self._view.clear_out())
        for name in self._view.neighbours.connected(self._view.names):
            neighbour = self._view.neighbours[name]
            if name not in before and self._view.lacks(name, neighbour.round, neighbour.have):
                self._actions.append(Resend(name))
        if round_index >= self._rounds:
            self._finish()
        elif self._stopping:
            self.phase = "training" if self.plan.trains else "collecting"
            self._finish(complete=False)
        else:
            self._go_on()

    def _finish(self, complete: bool = True) -> None:
        self._cancel_timer("start")
        self._cancel_timer("deadline")
        self._running = False
        if complete:
            self.phase = "done"
            for name in self._view.inbox.names():
                self._discard(self._view.inbox.drop(name, "late"))
        self._actions.append(Finish(complete))

    def _discard(self, discarded: Iterable[Discard]) -> None:
        for discard in discarded:
            self.discarded[discard.reason] += 1
            self._actions.append(discard)

    def _set_deadline(self) -> None:
        if "deadline" not in self._timers:
            self._set_timer("deadline", self._gossip.deadline * self.plan.patience)

    def _set_timer(self, timer: Timer, seconds: float) -> None:
        self._timers.add(timer)
        self._actions.append(SetTimer(timer, seconds))

    def _cancel_timer(self, timer: Timer) -> None:
        if timer in self._timers:
            self._timers.discard(timer)
            self._actions.append(CancelTimer(timer))
