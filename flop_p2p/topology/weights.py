"""Mixing matrices of static graphs.

Row i of a mixing matrix W ``[sites, sites]`` holds the weights that site i gives to what it receives and
to its own body; it sums to one. If the columns sum to one as well (doubly stochastic), mixing keeps the
mean of all bodies and the sites converge to it; otherwise they converge to a weighted mean.
"""

from collections.abc import Mapping, Sequence

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array, diags_array

from flop_p2p.config.topology import MixingWeights
from flop_p2p.errors import TopologyError

TOLERANCE = 1e-9


def mixing_matrix(graph: nx.Graph, weights: MixingWeights) -> csr_array:
    """The mixing matrix of an undirected or directed graph, ``[sites, sites]`` float64.

    With d_i the number of sites that i receives from, for an edge from j to i:

    - ``metropolis-hastings``: 1 / (1 + max(d_i, d_j)), doubly stochastic (Xiao, Boyd and Kim 2007);
    - ``maximum-degree``: 1 / (1 + max d), doubly stochastic;
    - ``uniform``: 1 / (1 + d_i), the plain mean of what arrives and the own body;
    - ``given``: the ``weight`` of the edge.

    The own body takes the rest. On a regular graph the first three are the same.

    Raises:
        TopologyError: Metropolis-Hastings or maximum-degree weights of an irregular directed graph.
    """
    if weights == "given":
        return _with_own_weight(_links(graph, weight="weight"))
    links = _links(graph)
    degrees = _degrees(links)
    if weights != "uniform" and graph.is_directed() and not _regular(links):
        raise TopologyError(f"{weights} mixing weights need an undirected graph; use uniform")
    row, column = links.tocoo().coords
    if weights == "metropolis-hastings":
        links.data = 1 / (1 + np.maximum(degrees[row], degrees[column]))
    elif weights == "maximum-degree":
        links.data = np.full(links.nnz, 1 / (1 + degrees.max()))
    else:
        links.data = 1 / (1 + degrees[row])
    return _with_own_weight(links)


def sample_mixing_matrix(graph: nx.Graph, samples: Sequence[int]) -> csr_array:
    """The mixing matrix of an undirected graph that keeps the mean weighted by ``samples`` n: n^T W = n^T.

    On a full mesh W_ij = n_j / sum n, as a server would average. Otherwise an edge gets
    min(1, n_j / n_i) / (1 + max(d_i, d_j)): the Metropolis-Hastings chain whose limit is n / sum n
    (Hastings 1970).
    """
    counts = np.asarray(samples, dtype=np.float64)
    links = _links(graph)
    degrees = _degrees(links)
    if degrees.min() == len(counts) - 1:
        return csr_array(np.tile(counts / counts.sum(), (len(counts), 1)))
    row, column = links.tocoo().coords
    links.data = np.minimum(1, counts[column] / counts[row]) / (1 + np.maximum(degrees[row], degrees[column]))
    return _with_own_weight(links)


def check_given_weights(graph: nx.Graph, own: Mapping[int, float], sites: Sequence[str]) -> None:
    """Refuse given weights with which a site's row does not sum to one.

    Args:
        own: weights that sites give to their own bodies, by position; another site takes the rest.

    Raises:
        TopologyError: one line that names the first such site.
    """
    received = _links(graph, weight="weight").sum(axis=1)
    for position, total in enumerate(received):
        if total > 1 + TOLERANCE:
            raise TopologyError(f"weights of what {sites[position]!r} receives sum to {total:.6g}, more than one")
        if position in own and abs(total + own[position] - 1) > TOLERANCE:
            raise TopologyError(
                f"weights of what {sites[position]!r} receives and of its own body sum to "
                f"{total + own[position]:.6g}, not to one"
            )


def is_doubly_stochastic(matrix: csr_array) -> bool:
    """Whether the columns of a mixing matrix sum to one, as its rows do."""
    return bool(np.allclose(matrix.sum(axis=0), 1, rtol=0, atol=TOLERANCE))


def _links(graph: nx.Graph, weight: str | None = None) -> csr_array:
    """Who receives (row) from whom (column), ``[sites, sites]``: ones, or the edges' weights."""
    sent = nx.to_scipy_sparse_array(graph, nodelist=range(len(graph)), weight=weight, dtype=np.float64)
    links = csr_array(sent.T)
    links.sort_indices()
    return links


def _degrees(links: csr_array) -> NDArray[np.int64]:
    return np.asarray(np.diff(links.indptr), dtype=np.int64)


def _regular(links: csr_array) -> bool:
    degrees = np.concatenate([_degrees(links), _degrees(csr_array(links.T))])
    return bool(degrees.min() == degrees.max())


def _with_own_weight(links: csr_array) -> csr_array:
    rest = 1 - links.sum(axis=1)
    rest[np.abs(rest) < TOLERANCE] = 0
    matrix = csr_array(links + diags_array(rest))
    matrix.eliminate_zeros()
    matrix.sort_indices()
    return matrix
