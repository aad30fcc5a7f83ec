"""Topology files: named sites with a list of edges, or a family.

The format is described in `topologies/README.md`. Everything wrong with a file is one line that names it.
"""

import difflib
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

import networkx as nx

from flop_p2p.config import TopologyFile, TopologySettings, read_toml, validate
from flop_p2p.config.topology import TOPOLOGY_FILE_SUFFIX
from flop_p2p.errors import TopologyError
from flop_p2p.topology.families import check_size, parse_spec
from flop_p2p.topology.weights import check_given_weights

SHOWN = 5


def read_topology_file(path: Path) -> TopologyFile:
    """Read and check a topology file.

    Raises:
        ConfigError: the file cannot be read, has an unknown key or a value of a wrong kind.
        TopologyError: its graph cannot be used, as in `check_topology_file`.
    """
    file = validate(TopologyFile, read_toml(path), str(path))
    check_topology_file(file, str(path))
    return file


def inline_topology(settings: TopologySettings) -> tuple[TopologySettings, TopologyFile | None]:
    """The settings without the folder of their topology file, and its content; None where they name a family.

    Raises:
        ConfigError, TopologyError: as in `read_topology_file`.
    """
    if not settings.name.endswith(TOPOLOGY_FILE_SUFFIX):
        return settings, None
    path = Path(settings.name)
    return settings.model_copy(update={"name": path.name}), read_topology_file(path)


def check_topology_file(file: TopologyFile, where: str) -> None:
    """Refuse a topology file that describes no graph to use; ``where`` names its origin in the error.

    Raises:
        TopologyError: it names no graph or two, a site twice or an unknown one, a self-loop, an edge twice,
            a weight that is not positive, some weights only, weights that do not sum to one, or a graph
            that does not link all sites.
    """
    try:
        _check_sites(file)
        if (file.family is None) == (not file.edges):
            raise TopologyError("give either a family or edges")
        if file.edges:
            _check_edges(file)
            _check_weights(file)
            check_connected(file_graph(file), file.sites)
        elif file.directed or file.own_weights:
            raise TopologyError("directed and own_weights belong to edges, not to a family")
        elif file.family is not None:
            spec = parse_spec(file.family)
            if file.sites:
                check_size(spec, len(file.sites))
    except TopologyError as error:
        raise TopologyError(f"{where}: {error}") from error


def file_graph(file: TopologyFile) -> nx.Graph:
    """The graph of a file's edges over positions in its ``sites``, with the ``weight`` of each where given."""
    position = {site: index for index, site in enumerate(file.sites)}
    graph = nx.DiGraph() if file.directed else nx.Graph()
    graph.add_nodes_from(range(len(file.sites)))
    for first, second, weight in file.edges:
        graph.add_edge(position[first], position[second], **({} if weight is None else {"weight": weight}))
    return graph


def check_same_sites(where: str, file_sites: Sequence[str], sites: Sequence[str], whose: str) -> None:
    """Refuse a file whose sites are not those of ``whose`` (the data, the federation).

    Raises:
        TopologyError: one line that names the sites found on one side only.
    """
    differences = [
        f"{where}: {_listed(names)}"
        for where, names in (
            ("only in the file", [site for site in file_sites if site not in set(sites)]),
            (f"only in {whose}", [site for site in sites if site not in set(file_sites)]),
        )
        if names
    ]
    if differences:
        raise TopologyError(
            f"{where}: its {len(file_sites)} sites are not the {len(sites)} sites of {whose}; {'; '.join(differences)}"
        )


def check_connected(graph: nx.Graph, sites: Sequence[str]) -> None:
    """Refuse a graph in which some site's body never reaches another site.

    Raises:
        TopologyError: one line that names the parts, or for a directed graph a pair without a way.
    """
    if not graph.is_directed():
        parts = sorted((sorted(part) for part in nx.connected_components(graph)), key=len)
        if len(parts) > 1:
            named = _listed(sites[node] for node in parts[0])
            raise TopologyError(
                f"the graph is disconnected into {len(parts)} parts; no edge links {named} to the others"
            )
        return
    reached = {0, *nx.descendants(graph, 0)}
    reaching = {0, *nx.ancestors(graph, 0)}
    for node, name in enumerate(sites):
        if node not in reached or node not in reaching:
            sender, receiver = (sites[0], name) if node not in reached else (name, sites[0])
            raise TopologyError(
                f"the directed graph is not strongly connected: what {sender!r} sends never reaches {receiver!r}"
            )


def _check_sites(file: TopologyFile) -> None:
    if not all(site.strip() for site in file.sites):
        raise TopologyError("a site has an empty name; name every site")
    for site, times in Counter(file.sites).items():
        if times > 1:
            raise TopologyError(f"site {site!r} is named twice")
    if len(file.sites) == 1 or (file.edges and not file.sites):
        raise TopologyError("name two or more sites")


def _check_edges(file: TopologyFile) -> None:
    seen: dict[frozenset[str] | tuple[str, str], int] = {}
    for number, edge in enumerate(file.edges, start=1):
        for site in (edge.first, edge.second):
            _check_known(site, file.sites, f"edge {number}")
        if edge.first == edge.second:
            raise TopologyError(f"edge {number} is a self-loop of {edge.first!r}; use own_weights for its own weight")
        pair = (edge.first, edge.second) if file.directed else frozenset((edge.first, edge.second))
        if pair in seen:
            raise TopologyError(
                f"edges {seen[pair]} and {number} are the same edge of {edge.first!r} and {edge.second!r}"
            )
        seen[pair] = number


def _check_weights(file: TopologyFile) -> None:
    for site, weight in file.own_weights.items():
        _check_known(site, file.sites, "own_weights")
        if weight < 0:
            raise TopologyError(f"the own weight of {site!r} is {weight:g}, below zero")
    if not file.weighted:
        if file.own_weights:
            raise TopologyError("own_weights need weights on the edges too")
        return
    for number, edge in enumerate(file.edges, start=1):
        if edge.weight is None:
            raise TopologyError(
                f"edge {number}, {edge.first!r} and {edge.second!r}, has no weight while others have one"
            )
        if edge.weight <= 0:
            raise TopologyError(
                f"the weight of edge {number}, {edge.first!r} and {edge.second!r}, is {edge.weight:g}; "
                "weights are positive"
            )
    own = {file.sites.index(site): weight for site, weight in file.own_weights.items()}
    check_given_weights(file_graph(file), own, file.sites)


def _check_known(site: str, sites: Sequence[str], where: str) -> None:
    if site not in sites:
        close = difflib.get_close_matches(site, sites, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else ""
        raise TopologyError(f"{where}: unknown site {site!r}{hint}")


def _listed(names: Iterable[str]) -> str:
    listed = [repr(name) for name in names]
    return ", ".join(listed[:SHOWN]) + (f" and {len(listed) - SHOWN} more" if len(listed) > SHOWN else "")
