"""The network in virtual time with masked gossip: declarations, lists of participants, and sums of masked bodies.

A masked body is its weight times the body, and the list that it was masked for: only bodies of one list may be summed.
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from virtual_network import Checkpoint, Site, VirtualNetwork

from flop_p2p.gossip.actions import Action, Ask, Discard, Mix, Publish, Resend
from flop_p2p.topology import fewest_senders

ROUNDS_HELD = 2

List = tuple[tuple[str, int], ...]  # participants, each with the number that stands for the key that it declared
Telling = Callable[["MaskedSite"], list[Action]]


@dataclass
class MaskedSite(Site):
    """A driver of masked gossip, as the daemon's `MaskedCourier` is one."""

    network: "MaskedNetwork"
    own: dict[int, np.ndarray] = field(default_factory=dict)
    keys: dict[tuple[str, int], int] = field(default_factory=dict)
    declared: dict[tuple[str, int], int] = field(default_factory=dict)
    asked: tuple[int, List] = (-1, ())
    gathered: dict[str, np.ndarray] = field(default_factory=dict)
    closed: int = -1

    def perform(self, action: Action) -> None:
        match action:
            case Publish(round_index, receivers):
                self.publish(round_index, receivers)
            case Resend(name):
                self.network.resent += 1
                self.resend(name)
            case Ask(round_index, participants, receivers):
                self.ask(round_index, participants, receivers)
            case Discard(name, body_round, reason):
                assert self.declared.pop((name, body_round), None) is not None, f"{action} of what is not held"
                self.network.discarded[reason] += 1
            case _:
                super().perform(action)

    def publish(self, round_index: int, receivers: tuple[str, ...]) -> None:
        if not self.trained:  # after a restart: what was answered before is forgotten
            self.closed = round_index
            return
        self.own = {held: body for held, body in self.own.items() if held > round_index - ROUNDS_HELD}
        self.own[round_index] = self.body.copy()
        self.network.checkpoints[self.name] = Checkpoint(round_index, True, self.body.copy())
        for name in receivers:
            self.declare(name, round_index)

    def resend(self, name: str) -> None:
        published = self.protocol.published
        if published <= self.closed:
            self.tell(name, lambda other: other.protocol.declined(self.name, published))
        else:
            self.declare(name, published)

    def declare(self, name: str, round_index: int) -> None:
        if name in self.protocol.plan.receivers(round_index):
            key = self.keys.setdefault((name, round_index), next(self.network.tokens))
            self.tell(name, lambda other: other.hear(self.name, round_index, key))

    def hear(self, name: str, round_index: int, key: int) -> list[Action]:
        actions = self.protocol.body_arrived(name, round_index)
        refused = [a for a in actions if isinstance(a, Discard) and (a.name, a.round) == (name, round_index)]
        if not refused:
            self.declared[name, round_index] = key
        return [a for a in actions if a not in refused]

    def ask(self, round_index: int, participants: tuple[str, ...], receivers: tuple[str, ...]) -> None:
        senders = self.protocol.plan.weights(round_index).keys() - {self.name}
        assert len(participants) >= fewest_senders(len(senders)) >= 2
        who = tuple((name, self.declared[name, round_index]) for name in participants)
        if self.asked != (round_index, who):
            assert round_index > self.asked[0], "two lists in one round"
            self.asked, self.gathered = (round_index, who), {}
        for name in receivers:
            self.tell(name, lambda other: other.asked_by(self.name, round_index, who))

    def asked_by(self, receiver: str, round_index: int, who: List) -> list[Action]:
        """Send a masked body for one list; the same list may come again after a lost connection."""
        lists = self.network.answered.setdefault((self.name, receiver, round_index), set())
        held = self.own.get(round_index)
        if held is None or self.keys.get((receiver, round_index)) != dict(who).get(self.name) or lists - {who}:
            self.tell(receiver, lambda other: other.protocol.declined(self.name, round_index))
            return []
        lists.add(who)
        masked = self.protocol.plan.weights_of(receiver, round_index)[self.name] * held
        seconds = self.network.random.uniform(*self.network.weather.transfer)
        self.network.later(
            seconds,
            self,
            lambda: self.tell(receiver, lambda other: other.receives(self.name, round_index, who, masked)),
        )
        return []

    def receives(self, name: str, round_index: int, who: List, masked: np.ndarray) -> list[Action]:
        if self.asked != (round_index, who) or name in self.gathered:
            return []
        self.gathered[name] = masked
        return self.protocol.masked_body_arrived(name, round_index)

    def tell(self, name: str, what: Telling) -> None:
        network = self.network
        if network.random.random() >= network.weather.loss:  # the connection breaks before it has come, say
            network.deliver_to(self, name, what)

    def mix(self, mix: Mix) -> None:
        assert abs(mix.own_weight + sum(part.weight for part in mix.parts) - 1) < 1e-9
        assert mix.round == self.protocol.round_index
        self.mixes.append(mix)
        total = np.zeros_like(self.body)
        if mix.parts:
            names = [part.name for part in mix.parts]
            assert names == [name for name, _ in self.asked[1]], "a sum of others than those on the list"
            assert {part.round for part in mix.parts} == {self.asked[0]}
            weights = self.protocol.plan.weights(self.asked[0])
            factor = sum(part.weight for part in mix.parts) / sum(weights[name] for name in names)
            total = factor * sum(self.gathered[name] for name in names)
        mixed = mix.own_weight * self.body + total

        def done() -> None:
            self.body = mixed
            for part in mix.parts:
                self.declared.pop((part.name, part.round))
            self.happens(self.protocol.mixed)

        self.network.later(self.network.random.uniform(0, 0.1), self, done)


class MaskedNetwork(VirtualNetwork):
    """Sites that gossip masked bodies. ``weather.loss`` is that of all messages of masked gossip.

    Attributes:
        answered: the lists that a sender answered, by sender, receiver and round; over restarts.
    """

    site_type = MaskedSite
    masked = True

    def __init__(self, *arguments: object, **more: object) -> None:
        self.answered: dict[tuple[str, str, int], set[List]] = {}
        super().__init__(*arguments, **more)  # type: ignore[arg-type]

    def deliver_to(self, sender: MaskedSite, name: str, what: Telling) -> None:
        """A message from one site to another, if they are connected."""
        pair = frozenset((sender.name, name))
        site, link = self.sites.get(name), self._links.get(pair)
        if site is not None and link is not None:

            def arrive() -> None:
                if self._links[pair] == link:  # a site that has finished still answers
                    site.happens(lambda: what(site))

            self.later(self.delay(), site, arrive)
