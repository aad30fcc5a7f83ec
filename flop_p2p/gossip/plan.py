"""Plans: with whom one site exchanges bodies in which round, and with which weights."""

import functools
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from flop_p2p.config.federation import FederationSettings
from flop_p2p.errors import FederationError
from flop_p2p.topology import Schedule, federation_schedule

SCHEDULED_ROUNDS = 16  # rounds of a random schedule that a plan remembers


class Plan(Protocol):
    """One site's part in a topology. Rounds are counted from 0, names are ascending."""

    @property
    def trains(self) -> bool:
        """False for a server, which averages only, and publishes after mixing."""

    @property
    def patience(self) -> int:
        """Deadlines that the site waits: 2 where a server answers that itself waits one for the others, else 1."""

    def weights(self, round_index: int) -> Mapping[str, float]:
        """The weight of each body that the site mixes, its own included: they sum to one."""

    def weights_of(self, receiver: str, round_index: int) -> Mapping[str, float]:
        """The same of a site that mixes this site's body of the round."""

    def receivers(self, round_index: int) -> tuple[str, ...]:
        """The sites that mix this site's body of the round."""

    def neighbours(self, round_index: int) -> tuple[str, ...]:
        """All sites that it exchanges with in any round of the plan that holds in this round."""


class GossipPlan:
    """A site's row (what it receives) and column (whom it sends to) of a schedule's mixing matrices.

    Args:
        schedule: its sites may be in any order.
        name: the site.
    """

    trains = True
    patience = 1

    def __init__(self, schedule: Schedule, name: str) -> None:
        self._schedule = schedule
        self._name = name
        self._position = schedule.sites.index(name)
        # kept for a site, not for the class: the arguments would keep every plan alive
        self._weights = functools.lru_cache(maxsize=schedule.period or SCHEDULED_ROUNDS)(self._own_row)
        self._receivers = functools.lru_cache(maxsize=schedule.period or SCHEDULED_ROUNDS)(self._column)

    def weights(self, round_index: int) -> Mapping[str, float]:
        """The site's row of the mixing matrix, zeros left out."""
        return self._weights(self._phase(round_index))

    def weights_of(self, receiver: str, round_index: int) -> Mapping[str, float]:
        """Another site's row of the mixing matrix."""
        return self._row(self._phase(round_index), self._schedule.sites.index(receiver))

    def receivers(self, round_index: int) -> tuple[str, ...]:
        """The other sites in whose rows this site is."""
        return self._receivers(self._phase(round_index))

    def neighbours(self, round_index: int) -> tuple[str, ...]:  # noqa: ARG002 - the same in all rounds
        """Senders and receivers of a whole period; of a random schedule all sites."""
        return self._all_neighbours

    @functools.cached_property
    def _all_neighbours(self) -> tuple[str, ...]:
        if self._schedule.period is None:
            names = set(self._schedule.sites)
        else:
            rounds = range(self._schedule.period)
            names = {name for index in rounds for name in (*self.weights(index), *self.receivers(index))}
        return tuple(sorted(names - {self._name}))

    def _phase(self, round_index: int) -> int:
        return round_index if self._schedule.period is None else round_index % self._schedule.period

    def _own_row(self, round_index: int) -> dict[str, float]:
        return self._row(round_index, self._position)

    def _row(self, round_index: int, position: int) -> dict[str, float]:
        matrix = self._schedule.mixing(round_index)
        entries = slice(matrix.indptr[position], matrix.indptr[position + 1])
        row = zip(matrix.indices[entries], matrix.data[entries], strict=True)
        return {self._schedule.sites[position]: float(weight) for position, weight in row if weight}

    def _column(self, round_index: int) -> tuple[str, ...]:
        matrix = self._schedule.mixing(round_index)
        entries = np.flatnonzero((matrix.indices == self._position) & (matrix.data != 0))
        rows = np.searchsorted(matrix.indptr, entries, side="right") - 1
        return tuple(sorted(self._schedule.sites[row] for row in rows if row != self._position))


class StarPlan:
    """Centralized FLOP: the server takes the mean of the sites' bodies, a site takes the server's body as it is.

    Args:
        server: name of the server.
        sites: weight of each site, in proportion: ones, or numbers of training samples.
        name: the server or one of the sites.
    """

    def __init__(self, server: str, sites: Mapping[str, float], name: str) -> None:
        self.trains = name != server
        self.patience = 2 if self.trains else 1
        total = sum(sites.values())
        self._server = server
        self._shares = {site: weight / total for site, weight in sites.items()}
        self._weights = self.weights_of(name, 0)
        self._others = (server,) if self.trains else tuple(sorted(sites))

    def weights(self, round_index: int) -> Mapping[str, float]:  # noqa: ARG002
        """A site: 1 for the server; the server: each site's share. The own body counts nothing."""
        return self._weights

    def weights_of(self, receiver: str, round_index: int) -> Mapping[str, float]:  # noqa: ARG002
        """The same of the server or of a site."""
        if receiver == self._server:
            return {self._server: 0.0, **self._shares}
        return {self._server: 1.0, receiver: 0.0}

    def receivers(self, round_index: int) -> tuple[str, ...]:  # noqa: ARG002
        """The server, or all sites."""
        return self._others

    def neighbours(self, round_index: int) -> tuple[str, ...]:  # noqa: ARG002
        """The server, or all sites."""
        return self._others


class RevisedPlan:
    """The plans of a federation's revisions, one after the other.

    Args:
        plans: each with the first round in which it holds, ascending. The first also holds before that: a site
            that joins with a later revision knows no other.
    """

    def __init__(self, plans: Sequence[tuple[int, Plan]]) -> None:
        self._plans = tuple(plans)
        self.trains = plans[0][1].trains
        self.patience = plans[0][1].patience

    def weights(self, round_index: int) -> Mapping[str, float]:
        """Those of the plan that holds in the round."""
        return self._plan(round_index).weights(round_index)

    def weights_of(self, receiver: str, round_index: int) -> Mapping[str, float]:
        """Those of the plan that holds in the round."""
        return self._plan(round_index).weights_of(receiver, round_index)

    def receivers(self, round_index: int) -> tuple[str, ...]:
        """Those of the plan that holds in the round."""
        return self._plan(round_index).receivers(round_index)

    def neighbours(self, round_index: int) -> tuple[str, ...]:
        """Those of the plan that holds in the round."""
        return self._plan(round_index).neighbours(round_index)

    def _plan(self, round_index: int) -> Plan:
        begun = [plan for from_round, plan in self._plans if from_round <= round_index]
        return begun[-1] if begun else self._plans[0][1]


def build_plan(federation: FederationSettings, name: str) -> Plan:
    """The plan of one member: a star for method ``flop``, else its part of the topology's schedule.

    Raises:
        FederationError: no such member, a server where none is needed or none where one is, or a member without
            its number of samples.
        TopologyError: as `federation_schedule`.
    """
    servers = [member.name for member in federation.members if member.role == "server"]
    if federation.method == "flop":
        if len(servers) != 1:
            raise FederationError(f"method 'flop' needs one member with role 'server', found {len(servers)}")
        plan: Plan = StarPlan(servers[0], _shares(federation), _known(name, federation.names))
    else:
        plan = GossipPlan(federation_schedule(federation), _known(name, federation.sites))
    return plan


def _known(name: str, names: Sequence[str]) -> str:
    if name not in names:
        raise FederationError(f"{name!r} takes no part in the federation; those that do are {', '.join(names)}")
    return name


def _shares(federation: FederationSettings) -> dict[str, float]:
    """What each site counts for the server: one, or its number of training samples."""
    if federation.topology.weighting == "uniform":
        return dict.fromkeys(federation.sites, 1.0)
    shares = {site: federation.member(site).samples for site in federation.sites}
    for site, samples in shares.items():
        if samples is None:
            raise FederationError(f"weighting by samples: the number of samples of member {site!r} is not given")
    return {site: float(samples or 0) for site, samples in shares.items()}
