"""What a node knows in its round, and what follows from it: whom to wait for, who is ahead, who lacks a body."""

from collections.abc import Iterable

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.gossip.actions import Discard
from flop_p2p.gossip.inbox import Inbox
from flop_p2p.gossip.neighbours import Neighbours
from flop_p2p.gossip.plan import Plan


class View:
    """One node's knowledge of the others and of the bodies that it holds.

    Args:
        name: of the site.
        plan: with whom it exchanges; may be replaced.
        round_index: the round that it is in; moves on.
        published: round of its latest published body, -1 if none; moves on.
        masked: what is held are declarations of masked bodies, which are of no use in a later round.

    Attributes:
        passed_over: the latest round that the node had no body for, as its privacy budget was spent; -1 if none.
    """

    def __init__(
        self, name: str, plan: Plan, gossip: GossipSettings, round_index: int, published: int, masked: bool = False
    ) -> None:
        self.plan = plan
        self.round_index = round_index
        self.published = published
        self.passed_over = -1
        self.neighbours = Neighbours()
        self.inbox = Inbox(0 if masked else gossip.staleness)
        self._name = name
        self._gossip = gossip

    @property
    def names(self) -> tuple[str, ...]:
        """The neighbours of this round, ascending."""
        return self.plan.neighbours(self.round_index)

    @property
    def settled(self) -> int:
        """The latest round whose body is published, or never will be; -1 if none."""
        return max(self.published, self.passed_over)

    @property
    def behind(self) -> int:
        """If neighbours are beyond this round, the node has fallen behind."""
        return self.round_index + self._gossip.staleness

    def reachable(self, names: Iterable[str] | None = None) -> tuple[str, ...]:
        """Those of ``names`` (default all neighbours) that can be reached now."""
        return tuple(name for name in (self.names if names is None else names) if self.neighbours[name].connected)

    def held(self) -> dict[str, int | None]:
        """The round of the body to mix of each neighbour that this round mixes, ascending by name."""
        expected = sorted(self.plan.weights(self.round_index).keys() - {self._name})
        return {name: self.inbox.now(name, self.round_index) for name in expected}

    def missing(self) -> tuple[str, ...]:
        """The neighbours whose bodies of this round may still come and are worth waiting for."""
        late = (name for name, body_round in self.held().items() if body_round != self.round_index)
        return tuple(name for name in late if self.neighbours[name].may_send(self.round_index))

    def slow_receivers(self) -> tuple[str, ...]:
        """Those connected that are to mix the body of this round and, as far as is known, have not come to it.

        Going on without them, their inboxes would have to hold more than one later body of ours. Whoever also sends
        to us is waited for as a sender: its body of this round says that it has come.
        """
        connected = self.receivers()
        return tuple(name for name in connected if not self.neighbours[name].has_reached(self.round_index))

    def awaited(self) -> tuple[str, ...]:
        """All that are waited for before mixing, ascending: for their bodies, or for them to come to this round."""
        return tuple(sorted({*self.missing(), *self.slow_receivers()}))

    def any_here(self) -> bool:
        """Whether a body of this very round is held."""
        return any(self.inbox.now(name, self.round_index) == self.round_index for name in self.names)

    def all_gone(self) -> bool:
        """Whether all neighbours have left for good."""
        return all(self.neighbours[name].gone for name in self.names)

    def nobody_sends(self) -> bool:
        """Whether all neighbours have left for good, or only receive."""
        return all(self.neighbours[name].gone or self.neighbours[name].silent for name in self.names)

    def nobody(self) -> bool:
        """Whether no neighbour can be reached though some may come back."""
        return not self.reachable() and not self.all_gone()

    def further(self, beyond: int) -> tuple[str, ...]:
        """The reachable neighbours in a later round than ``beyond``, if the node has been left behind; else none.

        It has if more neighbours went on without it than are still near: one node that trained on alone, or that
        tells a round at random, does not draw the others with it.
        """
        reachable = self.reachable()
        further = tuple(name for name in reachable if self.neighbours[name].round > beyond)
        without = sum(self._went_on_without(name) for name in further)
        return further if without > len(reachable) - len(further) else ()

    def _went_on_without(self, name: str) -> bool:
        """Whether a neighbour has passed a round in which it should have mixed a body that is not yet published.

        Where a round's edges are directed, or others than those of the next, it may be ahead without having. A node
        that only receives is left behind by those whose bodies it should have mixed: they wait for it, too.
        """
        rounds = range(max(self.settled + 1, self.round_index, 0), self.neighbours[name].round)
        partners = self.plan.weights if self.passed_over > self.published else self.plan.receivers
        return self.round_index < 0 or any(name in partners(missed) for missed in rounds)

    def coming(self, beyond: int) -> tuple[str, ...]:
        """Those further whose bodies are not here but on their way, or are sent as soon as they are trained."""
        return tuple(name for name in self.further(beyond) if self._comes(name, beyond))

    def _comes(self, name: str, beyond: int) -> bool:
        neighbour = self.neighbours[name]
        rounds = (neighbour.round, max(neighbour.round - 1, self.round_index + 1))
        sends = any(name in self.plan.weights(body_round) for body_round in rounds)
        held = self.inbox.ahead(name, self.round_index)
        return (held is None or held < beyond) and (neighbour.promised or sends) and not neighbour.silent

    def within_reach(self, beyond: int) -> dict[str, int]:
        """The rounds of the later bodies that may replace the own if the node has been left behind, by name.

        None far beyond the middle one of those further: it would be of a node that trained on alone.
        """
        further = sorted(self.neighbours[name].round for name in self.further(beyond))
        if not further:
            return {}
        limit = further[(len(further) - 1) // 2] + self._gossip.staleness
        bodies = {name: self.inbox.ahead(name, self.round_index) for name in self.names}
        return {name: body for name, body in bodies.items() if body is not None and beyond <= body <= limit}

    def lacks(self, name: str, round_index: int, have: int) -> bool:
        """Whether a neighbour in ``round_index`` that has our body of round ``have`` needs the latest one."""
        if name not in self.names or self.published <= have or self.published < round_index:
            return False
        jumps = round_index < 0 or self.round_index - round_index > self._gossip.staleness
        return jumps or name in self.plan.receivers(self.published)

    def receivers(self) -> tuple[str, ...]:
        """To whom the body of this round is sent: who mixes it, can be reached, and has not finished."""
        connected = self.reachable(self.plan.receivers(self.round_index))
        return tuple(name for name in connected if not self.neighbours[name].finished)

    def give_up_lost(self) -> None:
        """The deadline has passed: those still missing that cannot be reached are not waited for again."""
        for name in self.missing():
            self.neighbours[name].given_up = not self.neighbours[name].connected

    def clear_out(self) -> list[Discard]:
        """What has to go of the bodies held, now that this round is entered."""
        discarded = self.inbox.advance(self.round_index)
        for name in self.inbox.names():
            later = self.inbox.ahead(name, self.round_index)
            if name not in self.names and name not in self.plan.neighbours(later or self.round_index):
                discarded += self.inbox.drop(name, "unexpected")
        return discarded
