"""The round protocol: what a node does when. Events come in, actions go out; no sockets, clocks or training inside.

A round is local training, publishing the body, collecting the neighbours' bodies, mixing. While collecting, a node
also waits until the receivers of its body have come to the round, so that it is never two bodies ahead of one. A server
trains nothing and publishes what it mixed: its receivers wait for it. The phases:

    starting -> training -> collecting -> mixing -> training of the next round, or done
        masked gossip: collecting -> gathering -> mixing
        starting or training -> catching-up -> mixing, or on as without it
"""

from collections import Counter

from flop_p2p.errors import NodeError
from flop_p2p.gossip.actions import Action, Discard, Resend, Timer
from flop_p2p.gossip.mixing import nothing
from flop_p2p.gossip.phases import Phase, Phases

__all__ = ["Phase", "RoundProtocol"]


class RoundProtocol(Phases):
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
        masked: neighbours declare masked bodies (`body_arrived`), and send them when they are asked for together.

    Attributes:
        plan: may be replaced (a new revision).
        phase: see above.
        absences: rounds in which a neighbour's body was missing, by name.
        catch_ups: how often rounds were skipped because the neighbours were further.
        stale_uses: bodies of an earlier round that were mixed in place of missing ones.
        masked_skips: rounds without a sum of masked bodies: fewer than two neighbours declared one, or one did not
            send it.
        start_waits: how often the time for starting has passed without enough neighbours.
    """

    @property
    def round_index(self) -> int:
        """The round that the node is in: -1 before a site that joins later takes part, ``rounds`` after the last."""
        return self._view.round_index

    @property
    def published(self) -> int:
        """Round of the latest published body, -1 if none."""
        return self._view.published

    @property
    def discarded(self) -> Counter[str]:
        """Received bodies that were not mixed, by reason."""
        return self._outbox.discarded

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
        neighbour.greets(min(round_index, self._rounds), finished)
        neighbour.promised = round_index - 1 > self.round_index
        if (self._running or self.phase == "done") and self._view.lacks(name, round_index, have):
            self._outbox.add(Resend(name))
        if self.phase == "gathering" and name in self.waiting_for:
            self._outbox.add(self._gathering.ask((name,)))
        return self._next()

    def lost(self, name: str) -> list[Action]:
        """A neighbour can no longer be reached."""
        self._view.neighbours[name].lose()
        return self._next()

    def left(self, name: str, last_round: int, finished: bool) -> list[Action]:
        """A neighbour said goodbye: no body of a later round than ``last_round`` comes before it greets again."""
        self._view.neighbours[name].leaves(last_round, finished)
        if self.phase == "gathering" and name in self.waiting_for:
            self._skip()
        return self._next()

    def silent(self, name: str, round_index: int) -> list[Action]:
        """A neighbour sends no body of this round or a later one, and goes on receiving."""
        self._view.neighbours[name].falls_silent(min(round_index, self._rounds))
        return self._next()

    def progress(self, name: str, round_index: int) -> list[Action]:
        """A heartbeat told a neighbour's round."""
        self._view.neighbours[name].tells(min(round_index, self._rounds))
        return self._next()

    def body_arrived(self, name: str, round_index: int) -> list[Action]:
        """A body came. It is held until a `Mix` uses it or a `Discard` names it, at most two of a neighbour."""
        known = name in self.plan.neighbours(max(round_index, self.round_index))
        if not known or not 0 <= round_index < self._rounds:
            self._outbox.discard([Discard(name, round_index, "unexpected")])
        elif self.phase == "done":
            self._outbox.discard([Discard(name, round_index, "late")])
        else:
            self._view.neighbours[name].sends(round_index)
            self._outbox.discard(self._view.inbox.add(name, round_index, self.round_index))
        return self._next()

    def masked_body_arrived(self, name: str, round_index: int) -> list[Action]:
        """A masked body came that was masked for the list asked for. It is held until the `Mix`, or until another is
        asked for.
        """
        self._gathering.arrived(name, round_index)
        return self._next()

    def declined(self, name: str, round_index: int) -> list[Action]:
        """A neighbour sends no masked body of this round, whatever it declared before."""
        self._view.neighbours[name].declined = round_index
        if self.phase == "gathering" and round_index == self._gathering.asked and name in self.waiting_for:
            self._skip()
        else:
            self._outbox.discard(self._view.inbox.take_out(name, round_index, "declined"))
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
            self._outbox.set_timer("start", self._gossip.start_timeout)
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

    def passed_over(self) -> list[Action]:
        """The training of this round may not be: the privacy budget is spent. There is no body to publish.

        Raises:
            NodeError: nothing is being trained.
        """
        if self._running and self.phase != "training":
            raise NodeError(f"a training was passed over that was not begun, in round {self.round_index}")
        if self._running:
            self._view.passed_over = self.round_index
            self._catch_up_or_go_on()
        return self._next()

    def mixed(self) -> list[Action]:
        """The mixing that was asked for is complete.

        Raises:
            NodeError: nothing is being mixed.
        """
        if self._mix is None:
            raise NodeError(f"a mixing ended that was not begun, in round {self.round_index}, phase {self.phase}")
        self._end_mixing(self._mix)
        return self._next()

    def not_mixed(self) -> list[Action]:
        """The masked bodies that were to be mixed have no sum that can be right: go on without them.

        Raises:
            NodeError: nothing is being mixed.
        """
        mix, self._mix = self._mix, None
        if mix is None:
            raise NodeError(f"a mixing failed that was not begun, in round {self.round_index}, phase {self.phase}")
        self._view.inbox.release()
        if mix.catches_up:
            self._cannot_catch_up()
        else:
            for part in mix.parts:
                self.absences.setdefault(part.name, []).append(mix.round)
            self.masked_skips.append(mix.round)
            self._end_mixing(nothing(mix))
        return self._next()

    def timer(self, timer: Timer) -> list[Action]:
        """A timer is due. One that is not set (any more) changes nothing."""
        if self._outbox.rings(timer):
            match self.phase:
                case "starting":
                    self._end_starting()
                case "collecting":
                    self._deadline_passed()
                case "gathering":
                    self._skip()
                case "catching-up":
                    self._end_catching_up()
        return self._next()

    def stop(self) -> list[Action]:
        """Finish soon: after the mixing where bodies are being exchanged, else at once."""
        self._stopping = True
        deadline_runs = self.phase in ("collecting", "gathering") and self._outbox.runs("deadline")
        exchanging = self.phase == "mixing" or deadline_runs
        if self._running and not exchanging:
            self._finish(complete=False)
        return self._next()
