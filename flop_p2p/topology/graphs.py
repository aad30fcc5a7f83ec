"""Static graphs over sites 0 .. n-1, as networkx graphs."""

import networkx as nx
import numpy as np

from flop_p2p.errors import TopologyError
from flop_p2p.seeding import derive, derive_int
from flop_p2p.topology.families import Spec, sides

ATTEMPTS = 1000


def static_graph(spec: Spec, sites: int, seed: int) -> nx.Graph:
    """The connected graph of a static family; an edge of a directed one points from sender to receiver.

    ``sites`` is a size at which the family exists; ``seed`` matters to random families only.

    Raises:
        TopologyError: no connected graph came up in 1,000 random draws.
    """
    match spec.family:
        case "path":
            return nx.path_graph(sites)
        case "ring":
            return nx.cycle_graph(sites)
        case "star":
            return nx.star_graph(sites - 1)
        case "full":
            return nx.complete_graph(sites)
        case "grid" | "torus":
            lattice = nx.grid_2d_graph(*sides(sites), periodic=spec.family == "torus")
            return nx.convert_node_labels_to_integers(lattice, ordering="sorted")
        case "hypercube":
            return nx.Graph([(i, i ^ hop) for i in range(sites) for hop in exponential_hops(sites)])
        case "exponential":
            return nx.DiGraph([((i + hop) % sites, i) for i in range(sites) for hop in exponential_hops(sites)])
        case "random-regular":
            return _random_regular(sites, int(spec.parameters[0]), seed)
        case "small-world":
            return _small_world(sites, int(spec.parameters[0]), spec.parameters[1], seed)
    raise ValueError(f"{spec} is not a static family")


def exponential_hops(sites: int) -> list[int]:
    """The ceil(log2 n) powers of two below the number of sites n: 1, 2, 4, ... (Ying et al., NeurIPS 2021)."""
    return [1 << exponent for exponent in range((sites - 1).bit_length())]


def _random_regular(sites: int, degree: int, seed: int) -> nx.Graph:
    """A random connected regular graph. With two neighbours it is a ring over the sites in random order."""
    if degree == 2:
        order = derive(seed, "random-regular").permutation(sites)
        return nx.Graph([(int(a), int(b)) for a, b in zip(order, np.roll(order, 1), strict=True)])
    for attempt in range(ATTEMPTS):
        graph = nx.random_regular_graph(degree, sites, seed=derive_int(seed, "random-regular", attempt))
        if nx.is_connected(graph):
            return graph
    raise TopologyError(f"random-regular:{degree}: no connected graph of {sites} sites came up in {ATTEMPTS} draws")


def _small_world(sites: int, neighbours: int, probability: float, seed: int) -> nx.Graph:
    """A connected small world (Watts and Strogatz, Nature 1998)."""
    seed = derive_int(seed, "small-world")
    try:
        return nx.connected_watts_strogatz_graph(sites, neighbours, probability, tries=ATTEMPTS, seed=seed)
    except nx.NetworkXError as error:
        raise TopologyError(
            f"small-world:{neighbours}:{probability:g}: no connected graph of {sites} sites came up in "
            f"{ATTEMPTS} draws; take more neighbours or a smaller probability"
        ) from error
