"""From the settings of a topology to its schedule over named sites."""

from collections.abc import Sequence
from pathlib import Path

import networkx as nx
from scipy.sparse import csr_array

from flop_p2p.config import FederationSettings, TopologyFile, TopologySettings
from flop_p2p.config.topology import TOPOLOGY_FILE_SUFFIX, MixingWeights
from flop_p2p.errors import TopologyError
from flop_p2p.topology.base_graph import base_graph
from flop_p2p.topology.checks import check_compression, check_masking
from flop_p2p.topology.families import Spec, check_size, parse_spec
from flop_p2p.topology.files import (
    check_same_sites,
    check_topology_file,
    file_graph,
    read_topology_file,
)
from flop_p2p.topology.graphs import static_graph
from flop_p2p.topology.schedules import Schedule, epidemic, one_peer_exponential, reorder
from flop_p2p.topology.weights import is_doubly_stochastic, mixing_matrix, sample_mixing_matrix

TIME_VARYING = ("one-peer-exponential", "base", "epidemic")


def file_sites(settings: TopologySettings) -> tuple[str, ...] | None:
    """The site names of a topology file, in its order; None for a family and for a file that names none.

    Raises:
        ConfigError: the file cannot be read or has a key or value of a wrong kind.
        TopologyError: its graph or its weights cannot be used.
    """
    file = _read(settings)
    return None if file is None else file.sites or None


def federation_schedule(federation: FederationSettings) -> Schedule:
    """The schedule over the sites of a federation, ascending by name (its server, if it has one, left out).

    Raises:
        TopologyError: as in `build_schedule`, `check_compression` and `check_masking`; with weighting by
            samples a member without their number counts as none.
    """
    samples = [federation.member(name).samples or 0 for name in federation.sites]
    schedule = build_schedule(federation.topology, federation.sites, samples, federation.seed, federation.graph)
    check_compression(federation.gossip, schedule)
    if federation.privacy.masking == "pairwise":
        check_masking(schedule)
    return schedule


def build_schedule(
    settings: TopologySettings,
    sites: Sequence[str],
    samples: Sequence[int] | None = None,
    seed: int = 0,
    file: TopologyFile | None = None,
) -> Schedule:
    """The schedule of a topology over ``sites``; its matrices keep their order.

    Args:
        samples: training samples of each site, in the order of ``sites``; used with ``weighting="samples"``.
        seed: draws random graphs and the rounds of an epidemic topology.
        file: content of the topology file that ``settings`` names, where it is not to be read from there.

    Raises:
        ConfigError: a topology file cannot be read or has a key or value of a wrong kind.
        TopologyError: the topology does not exist for so many sites, its file is wrong or has other sites,
            or the mixing weights or the weighting do not go with it.
    """
    names = tuple(sites)
    _check_sites(names)
    whose = "the data" if file is None else "the federation"
    if file is None:
        file = _read(settings)
    else:
        check_topology_file(file, settings.name)
    order = names
    if file is not None and file.sites:
        check_same_sites(settings.name, file.sites, names, whose)
        order = file.sites
    counts = _samples_of(order, names, samples) if settings.weighting == "samples" else None
    if file is not None and file.edges:
        name = Path(settings.name).stem
        weights = settings.weights or ("given" if file.weighted else None)
        if weights == "given" and not file.weighted:
            raise TopologyError(f"{settings.name}: given mixing weights need a weight on every edge")
        matrices: tuple[csr_array, ...] = (_static_matrix(name, file_graph(file), weights, counts),)
    else:
        spec = parse_spec(settings.name if file is None else file.family or "")
        name = str(spec) if file is None else Path(settings.name).stem
        check_size(spec, len(names))
        if settings.weights == "given":
            raise TopologyError(f"topology {name!r}: only a topology file with weighted edges has given mixing weights")
        if spec.family in TIME_VARYING and counts is not None:
            raise TopologyError(
                f"topology {name!r}: its rounds are made for the plain mean, not for weighting by samples; "
                "use uniform weighting, or an undirected static topology"
            )
        if spec.family == "epidemic":
            return Schedule(name, names, None, False, "uniform", epidemic(len(names), int(spec.parameters[0]), seed))
        matrices = _family_matrices(spec, len(names), settings.weights, counts, seed)
    if order != names:
        matrices = tuple(reorder(matrix, [order.index(site) for site in names]) for matrix in matrices)
    balanced = all(is_doubly_stochastic(matrix) for matrix in matrices)
    return Schedule(name, names, len(matrices), balanced, settings.weighting, matrices.__getitem__)


def _family_matrices(
    spec: Spec, sites: int, weights: MixingWeights | None, samples: Sequence[int] | None, seed: int
) -> tuple[csr_array, ...]:
    """The mixing matrices of one period of a family; time-varying ones have weights of their own."""
    match spec.family:
        case "one-peer-exponential":
            return one_peer_exponential(sites)
        case "base":
            return base_graph(sites, int(spec.parameters[0]))
        case _:
            return (_static_matrix(str(spec), static_graph(spec, sites, seed), weights, samples),)


def _static_matrix(
    name: str, graph: nx.Graph, weights: MixingWeights | None, samples: Sequence[int] | None
) -> csr_array:
    """The mixing matrix of a graph, by default with the weights that suit it."""
    if samples is None:
        return mixing_matrix(graph, weights or ("uniform" if graph.is_directed() else "metropolis-hastings"))
    if graph.is_directed():
        raise TopologyError(
            f"topology {name!r}: a directed graph cannot be weighted by samples; "
            "use uniform weighting, or an undirected static topology"
        )
    if weights not in (None, "metropolis-hastings"):
        raise TopologyError(
            f"topology {name!r}: weighting by samples sets the mixing weights itself and excludes {weights!r} ones; "
            "use uniform weighting, or metropolis-hastings mixing weights"
        )
    return sample_mixing_matrix(graph, samples)


def _samples_of(order: Sequence[str], sites: Sequence[str], samples: Sequence[int] | None) -> list[int]:
    """The samples of each site, in another order of the sites."""
    if samples is None or len(samples) != len(sites):
        given = "none" if samples is None else len(samples)
        raise TopologyError(f"weighting by samples needs the number of samples of all {len(sites)} sites, got {given}")
    count_of = dict(zip(sites, samples, strict=True))
    for site, count in count_of.items():
        if count <= 0:
            raise TopologyError(f"weighting by samples: site {site!r} has {count} samples")
    return [count_of[site] for site in order]


def _check_sites(sites: Sequence[str]) -> None:
    if len(sites) < 2:
        raise TopologyError(f"a topology links two or more sites, got {len(sites)}")
    if len(set(sites)) < len(sites):
        raise TopologyError("the names of the sites are not unique")


def _read(settings: TopologySettings) -> TopologyFile | None:
    return read_topology_file(Path(settings.name)) if settings.name.endswith(TOPOLOGY_FILE_SUFFIX) else None
