"""What a node knows in its round, and what follows from it: whom to wait for, who is ahead, who lacks a body."""

from flop_p2p.config.federation import GossipSettings
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
    """

    def __init__(self, name: str, plan: Plan, gossip: GossipSettings, round_index: int) -> None:
        self.plan = plan
        self.round_index = round_index
        self.published = -1  # round of the latest published body
        self.neighbours = Neighbours()
        self.inbox = Inbox(gossip.staleness)
        self._name = name
        self._gossip = gossip

    @property
    def names(self) -> tuple[str, ...]:
        """The neighbours of this round, ascending."""
        return self.plan.neighbours(self.round_index)

    @property
    def behind(self) -> int:
        """A neighbour beyond this round is too far ahead: rounds must be skipped."""
        return self.round_index + self._gossip.staleness

    def held(self) -> dict[str, int | None]:
        """The round of the body to mix of each neighbour that this round mixes, ascending by name."""
        expected = sorted(self.plan.weights(self.round_index).keys() - {self._name})
        return {name: self.inbox.now(name, self.round_index) for name in expected}

    def missing(self) -> tuple[str, ...]:
        """The neighbours whose bodies of this round may still come and are worth waiting for."""
        late = (name for name, body_round in self.held().items() if body_round != self.round_index)
        return tuple(name for name in late if self.neighbours[name].may_send(self.round_index))

    def any_here(self) -> bool:
        """Whether a body of this very round is held."""
        return any(self.inbox.now(name, self.round_index) == self.round_index for name in self.names)

    def all_gone(self) -> bool:
        """Whether all neighbours have left for good."""
        return all(self.neighbours[name].gone for name in self.names)

    def nobody(self) -> bool:
        """Whether no neighbour can be reached though some may come back."""
        return not self.neighbours.connected(self.names) and not self.all_gone()

    def leaders(self, beyond: int) -> tuple[str, ...]:
        """The neighbours in a later round than ``beyond`` if they are the majority, else none."""
        return self.neighbours.leaders(self.names, beyond)

    def coming(self, beyond: int) -> tuple[str, ...]:
        """The leaders whose bodies are not here but on their way, or are sent as soon as they are trained."""
        return tuple(name for name in self.leaders(beyond) if self._comes(name, beyond))

    def _comes(self, name: str, beyond: int) -> bool:
        neighbour = self.neighbours[name]
        rounds = (neighbour.round, max(neighbour.round - 1, self.round_index + 1))
        sends = any(name in self.plan.weights(body_round) for body_round in rounds)
        held = self.inbox.ahead(name, self.round_index)
        return (held is None or held < beyond) and (neighbour.promised or sends)

    def within_reach(self, beyond: int) -> dict[str, int]:
        """The rounds of the later bodies that may replace the own where there are leaders, by name.

        None far beyond the middle one of the leaders: it would be of a node that trained on alone.
        """
        leaders = self.leaders(beyond)
        if not leaders:
            return {}
        middle = sorted(self.neighbours[name].round for name in leaders)[(len(leaders) - 1) // 2]
        bodies = {name: self.inbox.ahead(name, self.round_index) for name in self.names}
        limit = middle + self._gossip.staleness
        return {name: body for name, body in bodies.items() if body is not None and beyond <= body <= limit}

    def lacks(self, name: str, round_index: int, have: int) -> bool:
        """Whether a neighbour in ``round_index`` that has our body of round ``have`` needs the latest one."""
        if name not in self.names or self.published <= have or self.published < round_index:
            return False
        jumps = round_index < 0 or self.round_index - round_index > self._gossip.staleness
        return jumps or name in self.plan.receivers(self.published)

    def receivers(self) -> tuple[str, ...]:
        """To whom the body of this round is sent: who mixes it, can be reached, and has not finished."""
        connected = self.neighbours.connected(self.plan.receivers(self.round_index))
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
