"""Who holds what of a site: at which distance from it, and with which weights the published bodies are in it."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from scipy.sparse import csr_array
from scipy.sparse.csgraph import dijkstra

from flop_p2p.simulation import Simulation
from flop_p2p.topology import Schedule, build_schedule
from flop_p2p.topology.analysis import edges_between

Holder = Literal["neighbour", "server", "other site", "anyone"]
MOST_DISTANCES = 8  # from a site; further away nothing is asked
LEAST_SENDERS = 2  # of a masked sum: that of a single body would be the body


@dataclass(frozen=True)
class Position:
    """Where an attacker stands.

    holder: of gossip a `neighbour`, at whatever distance from the victim; of a centralized method the `server`, or an
        `other site`, which gets the mean; `anyone` where a model that nobody gets is taken as if it were given away.
    distance: hops from the victim to the attacker; None for `anyone`.
    masked: the attacker gets the weighted sum of what its neighbours publish, and no single body (`privacy.masking`).
    """

    holder: Holder
    distance: int | None = None
    masked: bool = False


@dataclass(frozen=True)
class View:
    """What one attacker holds of one victim.

    attacker: the site whose head the attacker has. A server is given that of the site after the victim, as it has none
        itself.
    weights: those of the published bodies in the body that it holds, ``[sites]``, summing to one.
    """

    position: Position
    victim: int
    attacker: int
    weights: np.ndarray


def build_views(simulation: Simulation) -> list[View]:
    """All that is looked at in one federation, of every site as victim, after its last round.

    Raises:
        TopologyError: there is no such topology.
    """
    sites = len(simulation.sites)
    if simulation.method.exchange == "none":
        return [View(Position("anyone"), site, _after(site, sites), _only(site, sites)) for site in range(sites)]
    rounds = simulation.settings.training.rounds
    if simulation.method.exchange == "server":
        everyone = torch.eye(sites)
        simulation.exchange.mix(everyone, rounds - 1)  # which leaves the weights of the mean in every row
        mean = everyone[0].double().numpy()
        server = [View(Position("server", 1), site, _after(site, sites), _only(site, sites)) for site in range(sites)]
        return server + [View(Position("other site", 2), site, _after(site, sites), mean) for site in range(sites)]
    settings = simulation.settings
    counts = [len(site.train) for site in simulation.sites]
    names = [site.name for site in simulation.sites]
    return gossip_views(build_schedule(settings.topology, names, counts, settings.seed), rounds)


def gossip_views(schedule: Schedule, rounds: int) -> list[View]:
    """For every site and every distance from it one attacker, without masking and, where it can be, with it.

    The attacker is the first site after the victim, in their order, at this distance. It looks at the body of that one
    of its neighbours which is nearest to the victim; at distance 1 that is the victim itself.
    """
    sites = len(schedule.sites)
    edges = _all_edges(schedule, rounds)
    hops = distances(edges)
    sums = _masked_sums(schedule)
    views = []
    for victim in range(sites):
        order = [(victim + step) % sites for step in range(1, sites)]
        farthest = max((int(hops[victim, site]) for site in order if np.isfinite(hops[victim, site])), default=0)
        for distance in range(1, min(farthest, MOST_DISTANCES) + 1):
            attacker = next(site for site in order if hops[victim, site] == distance)
            senders = set(edges.indices[edges.indptr[attacker] : edges.indptr[attacker + 1]].tolist())
            near = next(site for site in [victim, *order] if site in senders and hops[victim, site] == distance - 1)
            views.append(View(Position("neighbour", distance), victim, attacker, _only(near, sites)))
            if sums is not None:
                views.append(View(Position("neighbour", distance, masked=True), victim, attacker, sums[attacker]))
    return views


def distances(edges: csr_array) -> np.ndarray:
    """Hops from each site to each other one, float64 ``[from, to]``, infinite where no path leads.

    Args:
        edges: nonzero where the site of the row receives from that of the column, ``[sites, sites]``.
    """
    hops: np.ndarray = dijkstra(edges.T, unweighted=True)
    return hops


def _all_edges(schedule: Schedule, rounds: int) -> csr_array:
    """Who received from whom in any of the rounds."""
    some = range(min(rounds, schedule.period or rounds))
    edges = csr_array(sum(abs(edges_between(schedule.mixing(index))) for index in some))
    edges.sort_indices()
    return edges


def _masked_sums(schedule: Schedule) -> np.ndarray | None:
    """The weights of what each site gets under masking, ``[sites, sites]``, each row summing to one.

    None where a site has fewer than two senders, or others in other rounds: bodies are not masked there.
    """
    if schedule.period != 1:
        return None
    received = edges_between(schedule.mixing(0)).toarray()
    if (np.count_nonzero(received, axis=1) < LEAST_SENDERS).any():
        return None
    sums: np.ndarray = received / received.sum(axis=1, keepdims=True)
    return sums


def _only(site: int, sites: int) -> np.ndarray:
    weights: np.ndarray = np.eye(sites)[site]
    return weights


def _after(site: int, sites: int) -> int:
    return (site + 1) % sites
