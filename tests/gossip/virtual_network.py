"""A network of round protocols in virtual time: latencies, losses, crashes, and a driver that checks every action."""

import heapq
import itertools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from random import Random

import numpy as np

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.gossip.actions import (
    Action,
    CancelTimer,
    Discard,
    Finish,
    Mix,
    Publish,
    Resend,
    SetTimer,
    Train,
)
from flop_p2p.gossip.plan import Plan
from flop_p2p.gossip.protocol import RoundProtocol

GOSSIP = GossipSettings(deadline=10, staleness=1, start_timeout=20, heartbeat=1, lost_after=3)
EPSILON = 1e-9
WAITS = ("collecting", "gathering", "catching-up")


@dataclass(frozen=True)
class Weather:
    """What the network does to messages. Times are in virtual seconds."""

    latency: tuple[float, float] = (0.01, 0.05)  # of a control message
    transfer: tuple[float, float] = (0.1, 0.5)  # of a body, more than its latency
    loss: float = 0.0  # of bodies
    duplication: float = 0.0  # of bodies
    overtaking: bool = False  # a body may come before one that was sent earlier


@dataclass
class Checkpoint:
    """What a restarted node finds."""

    round: int
    has_published: bool
    body: np.ndarray


@dataclass
class Site:
    """A driver: carries out what its protocol asks, and checks that it makes sense."""

    name: str
    protocol: RoundProtocol
    body: np.ndarray
    network: "VirtualNetwork"
    incarnation: int
    running: bool = True
    complete: bool | None = None
    outgoing: tuple[int, np.ndarray] | None = None
    bodies: dict[tuple[str, int], np.ndarray] = field(default_factory=dict)
    timers: dict[str, int] = field(default_factory=dict)
    mixed: set[tuple[str, int]] = field(default_factory=set)
    mixes: list[Mix] = field(default_factory=list)
    trained: list[int] = field(default_factory=list)
    seen: tuple[int, str, float] = (-1, "starting", 0.0)  # round and phase, and since when
    silent_from: int | None = None

    def happens(self, event: Callable[[], list[Action]]) -> None:
        """Tell the protocol what happened, and do as it asks."""
        for action in event():
            self.perform(action)
        self.check_state()

    def receive(self, sender: str, body_round: int, body: np.ndarray) -> None:
        """As the daemon does: what is not discarded at once is kept."""
        actions = self.protocol.body_arrived(sender, body_round)
        refused = [a for a in actions if isinstance(a, Discard) and (a.name, a.round) == (sender, body_round)]
        assert len(refused) <= 1
        if not refused:
            assert (sender, body_round) not in self.bodies, "a second body was accepted"
            self.bodies[sender, body_round] = body
        self.happens(lambda: [a for a in actions if a not in refused])

    def perform(self, action: Action) -> None:
        network = self.network
        match action:
            case Train(round_index):
                assert self.protocol.plan.trains
                assert not self.trained or round_index > self.trained[-1], "a round was trained twice"
                self.trained.append(round_index)
                network.later(network.training_time(self.name), self, lambda: self.train(round_index))
            case Publish(round_index, receivers):
                assert self.silent_from is None, "a body is published after the budget was spent"
                assert self.outgoing is None or round_index > self.outgoing[0] or not self.trained
                assert list(receivers) == sorted(receivers)
                self.outgoing = (round_index, self.body.copy())
                network.checkpoints[self.name] = Checkpoint(round_index, True, self.body.copy())
                for receiver in receivers:
                    network.send_body(self, receiver)
            case Resend(name):
                network.resent += 1
                network.send_body(self, name)
            case Mix():
                self.mix(action)
            case Discard(name, body_round, reason):
                assert self.bodies.pop((name, body_round), None) is not None, f"{action} of what is not held"
                network.discarded[reason] += 1
            case SetTimer(timer, seconds):
                token = self.timers[timer] = next(network.tokens)
                network.later(seconds, self, lambda: self.ring(timer, token))
            case CancelTimer(timer):
                del self.timers[timer]
            case Finish(complete):
                assert self.complete is None
                self.complete = complete
                network.finished(self)

    def train(self, round_index: int) -> None:
        if round_index >= self.network.budgets.get(self.name, self.network.rounds):
            self.network.hush(self, round_index)
            self.happens(self.protocol.passed_over)
            return
        self.body = self.body + self.network.work(self.name, round_index)
        self.happens(self.protocol.trained)

    def ring(self, timer: str, token: int) -> None:
        if self.timers.get(timer) == token:
            del self.timers[timer]
            self.happens(lambda: self.protocol.timer(timer))

    def mix(self, mix: Mix) -> None:
        weights = [mix.own_weight, *(part.weight for part in mix.parts)]
        assert abs(sum(weights) - 1) < EPSILON, f"{mix}: weights do not sum to one"
        assert min(weights) >= 0
        names = [part.name for part in mix.parts]
        assert names == sorted(set(names))
        assert self.name not in names
        assert not set(names) & set(mix.absent)
        assert mix.round == self.protocol.round_index
        for part in mix.parts:
            assert (part.name, part.round) not in self.mixed, f"{part} is mixed twice"
            self.mixed.add((part.name, part.round))
            if mix.catches_up:
                assert part.round > mix.round
            else:
                assert mix.round - self.network.gossip.staleness <= part.round <= mix.round
        self.mixes.append(mix)
        mixed = mix.own_weight * self.body
        for part in mix.parts:
            mixed = mixed + part.weight * self.bodies[part.name, part.round]

        def done() -> None:
            self.body = mixed
            for part in mix.parts:
                del self.bodies[part.name, part.round]
            self.happens(self.protocol.mixed)
            if self.network.random.random() < 0.5 and self.complete is None and self.protocol.phase == "training":
                self.network.checkpoints[self.name] = Checkpoint(self.protocol.round_index, False, self.body.copy())

        self.network.later(self.network.random.uniform(0, 0.1), self, done)

    def check_state(self) -> None:
        protocol, now = self.protocol, self.network.now
        held = Counter(name for name, _ in self.bodies)
        assert max(held.values(), default=0) <= 2, f"{self.name} holds {self.bodies.keys()}"
        round_index, phase, since = self.seen
        assert protocol.round_index >= round_index, "a round went backwards"
        if protocol.round_index != round_index:
            self.network.tell_round(self)
        if (protocol.round_index, protocol.phase) != (round_index, phase):
            self.seen = (protocol.round_index, protocol.phase, now)
        elif phase in WAITS and protocol.plan.trains and self.network.gossip.isolated == "train":
            limit = self.network.gossip.deadline * protocol.plan.patience
            limit += self.network.gossip.start_timeout if round_index == 0 else 0
            assert now - since <= limit + EPSILON, f"{self.name} waits beyond its deadline in round {round_index}"


class VirtualNetwork:
    """Sites over links, driven from one random generator: the same seed gives the same run.

    Args:
        plans: by name of the site; two sites are linked if one is the other's neighbour.
        bodies: the first body of each site.
        training: seconds that a site trains in a round.
        starts: when a site is first started, 0 if it is not named.
        first_rounds: of sites that join with a later revision.
        linger: seconds that a site that has finished still answers.
        work: what training a round adds to a site's body; nothing by default.
        budgets: the round from which a site's privacy budget lets it only receive.
    """

    site_type = Site
    masked = False

    def __init__(
        self,
        plans: Mapping[str, Plan],
        bodies: Mapping[str, np.ndarray],
        rounds: int,
        seed: int,
        *,
        gossip: GossipSettings = GOSSIP,
        weather: Weather = Weather(),
        training: Mapping[str, float] | None = None,
        starts: Mapping[str, float] | None = None,
        first_rounds: Mapping[str, int] | None = None,
        linger: float = 0.0,
        work: Callable[[str, int], np.ndarray] | None = None,
        budgets: Mapping[str, int] | None = None,
    ) -> None:
        self.budgets = dict(budgets or {})
        self.plans = dict(plans)
        self.rounds = rounds
        self.gossip = gossip
        self.weather = weather
        self.random = Random(seed)
        self.now = 0.0
        self.sites: dict[str, Site] = {}
        self.left: dict[str, bool] = {}  # who said goodbye, and whether it had finished
        self.checkpoints = {name: Checkpoint(0, False, np.array(body, float)) for name, body in bodies.items()}
        self.tokens = itertools.count()
        self.discarded: Counter[str] = Counter()
        self.resent = 0
        self.sent = 0
        self._training = dict(training or {})
        self._first_rounds = dict(first_rounds or {})
        self._linger = linger
        self._work = work
        self._queue: list[tuple[float, int, Callable[[], None]]] = []
        self._links: dict[frozenset[str], int | None] = {}  # number of the connection; None where there is none
        self._cut: set[frozenset[str]] = set()
        self._waiting: dict[tuple[int, str], tuple[int, np.ndarray]] = {}  # by link and receiver: round and body
        self._under_way: set[tuple[int, str]] = set()
        for name, plan in self.plans.items():
            for other in (*plan.neighbours(0), *plan.neighbours(rounds - 1)):
                self._links[frozenset((name, other))] = None
        for name in self.plans:
            self.at((starts or {}).get(name, 0.0), lambda name=name: self.boot(name))

    def training_time(self, name: str) -> float:
        return self._training.get(name, 1.0) * self.random.uniform(0.9, 1.1)

    def work(self, name: str, round_index: int) -> np.ndarray | float:
        return self._work(name, round_index) if self._work is not None else 0.0

    def at(self, when: float, what: Callable[[], None]) -> None:
        heapq.heappush(self._queue, (when, next(self.tokens), what))

    def later(self, seconds: float, site: Site, what: Callable[[], None]) -> None:
        """After so many seconds, unless the site is no longer running then."""
        self.at(self.now + seconds, lambda: what() if site.running else None)

    def run(self, until: float) -> None:
        """Let time pass; ends as soon as nothing is left to happen."""
        while self._queue and self._queue[0][0] <= until:
            self.now, _, what = heapq.heappop(self._queue)
            what()

    # Sites

    def boot(self, name: str) -> None:
        """Start a site, from its checkpoint."""
        checkpoint = self.checkpoints[name]
        protocol = RoundProtocol(
            name,
            self.plans[name],
            self.gossip,
            self.rounds,
            round_index=checkpoint.round,
            has_published=checkpoint.has_published,
            first_round=self._first_rounds.get(name, 0),
            masked=self.masked,
        )
        before = self.sites.get(name)
        assert before is None or not before.running
        site = self.site_type(name, protocol, checkpoint.body.copy(), self, next(self.tokens))
        self.sites[name] = site
        self.left.pop(name, None)
        site.seen = (protocol.round_index, protocol.phase, self.now)
        site.happens(protocol.start)
        for pair in self._links:
            if name in pair:
                self.dial(pair)
        self._beat(site)

    def crash(self, name: str) -> None:
        """Kill a site; its neighbours notice after a while."""
        site = self.sites.get(name)
        if site is not None and site.running and site.complete is None:
            self._end(site)

    def stop(self, name: str) -> None:
        """Ask a site to stop in good order."""
        site = self.sites.get(name)
        if site is not None and site.running and site.complete is None:
            site.happens(site.protocol.stop)

    def restart(self, name: str) -> None:
        """Start a site again that crashed or was stopped before its end."""
        site = self.sites.get(name)
        if site is not None and not site.running and not site.complete:
            self.boot(name)

    def finished(self, site: Site) -> None:
        """A site has nothing left to do: say goodbye, perhaps after lingering."""
        self.later(self._linger if site.complete else 0.0, site, lambda: self._leave(site))

    def _leave(self, site: Site) -> None:
        complete = bool(site.complete)
        self.left[site.name] = complete
        for pair, link in list(self._links.items()):
            if site.name in pair and link is not None:
                other = self.other(pair, site.name)
                last = site.protocol.published
                self.deliver(site, other, self.delay(), lambda peer, last=last: peer.left(site.name, last, complete))
        site.running = False
        self.at(self.now + 5, lambda: self._break(site, told=False))

    def _end(self, site: Site) -> None:
        site.running = False
        self.at(self.now + self.gossip.lost_after, lambda: self._break(site, told=True))

    def _break(self, site: Site, told: bool) -> None:
        """The links of a site that is gone break, but for those that it has built up anew."""
        for pair, link in list(self._links.items()):
            if site.name in pair and link is not None and not self.sites[site.name].running:
                self._links[pair] = None
                other = self.sites.get(self.other(pair, site.name))
                if told and other is not None and other.running:
                    other.happens(lambda other=other: other.protocol.lost(site.name))

    # Links

    @staticmethod
    def other(pair: frozenset[str], name: str) -> str:
        return next(iter(pair - {name}))

    def are_neighbours(self, one: str, other: str) -> bool:
        """Whether each is the other's neighbour in the round that it is in."""
        a, b = self.sites[one].protocol, self.sites[other].protocol
        return other in a.plan.neighbours(a.round_index) and one in b.plan.neighbours(b.round_index)

    def cut(self, one: str, other: str) -> None:
        """Cut a link; both sides notice after a while."""
        pair = frozenset((one, other))
        if pair in self._links:
            self._cut.add(pair)
            self._links[pair] = None
            for name in pair:
                site = self.sites.get(name)
                if site is not None:
                    peer = self.other(pair, name)
                    lost = lambda site=site, peer=peer: site.happens(lambda: site.protocol.lost(peer))  # noqa: E731
                    self.later(self.gossip.lost_after, site, lost)

    def mend(self, one: str, other: str) -> None:
        pair = frozenset((one, other))
        if pair in self._cut:
            self._cut.discard(pair)
            self.at(self.now + self.gossip.lost_after, lambda: self.dial(pair))

    def dial(self, pair: frozenset[str]) -> None:
        """Two sites greet each other if both are up; each tells where it is at the moment it speaks."""
        one, other = (self.sites.get(name) for name in sorted(pair))
        if one is None or other is None or not (one.running and other.running) or pair in self._cut:
            return
        number = self._links[pair] = next(self.tokens)

        def greet(speaker: Site, listener: Site) -> None:
            words = (speaker.protocol.round_index, speaker.protocol.have(listener.name), speaker.complete is True)
            delay, silent_from = self.delay(), speaker.silent_from

            def hear() -> None:
                if self._links[pair] == number:
                    listener.happens(lambda: listener.protocol.connected(speaker.name, *words))
                    if silent_from is not None:
                        listener.happens(lambda: listener.protocol.silent(speaker.name, silent_from))

            self.later(delay, listener, hear)

        greet(one, other)
        self.later(self.delay(), other, lambda: greet(other, one))

    def delay(self) -> float:
        return self.random.uniform(*self.weather.latency)

    def deliver(
        self, sender: Site, receiver: str, delay: float, event: Callable[[RoundProtocol], list[Action]]
    ) -> None:
        site, link = self.sites.get(receiver), self._links.get(frozenset((sender.name, receiver)))
        if site is not None and link is not None:
            self.later(delay, site, lambda: site.happens(lambda: event(site.protocol)))

    def _beat(self, site: Site) -> None:
        self.tell_round(site)
        self.later(self.gossip.heartbeat, site, lambda: self._beat(site))

    def tell_round(self, site: Site) -> None:
        """A heartbeat to all neighbours."""
        round_index = site.protocol.round_index
        for pair, link in self._links.items():
            if site.name in pair and link is not None:
                self.deliver(
                    site, self.other(pair, site.name), self.delay(), lambda peer: peer.progress(site.name, round_index)
                )

    def hush(self, site: Site, round_index: int) -> None:
        """A site tells, once, that it sends no body of this round or a later one."""
        if site.silent_from is None:
            site.silent_from = round_index
            for pair, link in self._links.items():
                if site.name in pair and link is not None:
                    other = self.other(pair, site.name)
                    self.deliver(site, other, self.delay(), lambda peer: peer.silent(site.name, round_index))

    def send_body(self, sender: Site, receiver: str) -> None:
        """Send the latest body, or let it wait in place of one that waits: as a link of the daemon does."""
        assert sender.outgoing is not None
        pair = frozenset((sender.name, receiver))
        assert pair in self._links, f"{sender.name} sends to {receiver}, which is no neighbour"
        self.sent += 1
        link = self._links[pair]
        if link is None or receiver not in self.sites:
            return
        self._waiting[link, receiver] = sender.outgoing
        if (link, receiver) not in self._under_way:
            self._send_next(pair, link, sender.name, receiver)

    def _send_next(self, pair: frozenset[str], link: int, sender: str, receiver: str) -> None:
        """The body that waits sets out: it may be lost, and may come twice. The next follows once it has come."""
        outgoing = self._waiting.pop((link, receiver), None)
        if outgoing is None or self._links[pair] != link:
            return
        round_index, body = outgoing
        site, copies = self.sites[receiver], 1 + (self.random.random() < self.weather.duplication)
        if self.random.random() < self.weather.loss:
            copies = 0

        def arrive() -> None:
            if self._links[pair] == link:
                site.receive(sender, round_index, body)

        delays = sorted(self.delay() + self.random.uniform(*self.weather.transfer) for _ in range(copies))
        for delay in delays:
            self.later(delay, site, arrive)
        if self.weather.overtaking or not delays:
            self._send_next(pair, link, sender, receiver)
        else:
            self._under_way.add((link, receiver))
            self.at(self.now + delays[-1], lambda: self._has_come(pair, link, sender, receiver))

    def _has_come(self, pair: frozenset[str], link: int, sender: str, receiver: str) -> None:
        self._under_way.discard((link, receiver))
        self._send_next(pair, link, sender, receiver)
