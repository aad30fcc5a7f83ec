"""What a schedule costs and how fast it brings the sites' bodies together."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvals, eigvalsh
from scipy.sparse import csr_array, eye_array, vstack
from scipy.sparse.csgraph import dijkstra
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigs, spsolve

from flop_p2p.seeding import derive
from flop_p2p.topology.schedules import Schedule

DENSE_SITES = 512  # up to so many sites all eigenvalues are computed, beyond only the largest
RANDOM_ROUNDS = 16  # rounds looked at for the degrees of a schedule that is drawn anew in each round
ROUND_LIMIT = 10_000
VECTORS = 16
NEGLIGIBLE = 1e-9


@dataclass(frozen=True)
class Analysis:
    """Figures of a schedule. Degrees and messages are those of single rounds.

    Attributes:
        sends: fewest and most sites that a site sends to in a round.
        receives: fewest and most sites that a site receives from in a round.
        diameter: hops between the two sites furthest from each other, over the edges of all rounds.
        spectral_gap: see `spectral_gap`; None if rounds are random.
        messages: bodies sent in a round, by all sites together, as a mean over rounds.
        rounds_to_thousandth: see `rounds_to_shrink`; None if it takes more than 10,000 rounds.
    """

    sends: tuple[int, int]
    receives: tuple[int, int]
    diameter: int
    spectral_gap: float | None
    messages: float
    rounds_to_thousandth: int | None


def analyse(schedule: Schedule) -> Analysis:
    """All figures of a schedule."""
    rounds = [edges_between(matrix) for matrix in _some_rounds(schedule)]
    receives = np.concatenate([np.diff(links.indptr) for links in rounds])
    sends = np.concatenate([np.bincount(links.indices, minlength=links.shape[0]) for links in rounds])
    return Analysis(
        sends=(int(sends.min()), int(sends.max())),
        receives=(int(receives.min()), int(receives.max())),
        diameter=diameter(schedule),
        spectral_gap=spectral_gap(schedule),
        messages=sum(links.nnz for links in rounds) / len(rounds),
        rounds_to_thousandth=rounds_to_shrink(schedule, 1000),
    )


def messages(schedule: Schedule, round_index: int) -> int:
    """Bodies sent in a round by all sites together."""
    return int(edges_between(schedule.mixing(round_index)).nnz)


def diameter(schedule: Schedule) -> int:
    """Hops between the two sites furthest from each other, over the edges of all rounds together.

    Of a random schedule it is 1: sooner or later any two sites meet.
    """
    if schedule.period is None:
        return 1
    links = functools.reduce(lambda a, b: a + b, (edges_between(matrix) for matrix in _some_rounds(schedule)))
    sites = len(schedule.sites)
    if links.nnz == sites * (sites - 1):
        return 1
    blocks = (range(start, min(start + DENSE_SITES, sites)) for start in range(0, sites, DENSE_SITES))
    return max(int(dijkstra(links, unweighted=True, indices=list(block)).max()) for block in blocks)


def influence(schedule: Schedule) -> NDArray[np.float64] | None:
    """The weight of each site in the body that all converge to, ``[sites]``, summing to one.

    It is the left Perron vector of the product of a period's mixing matrices. None for random rounds.
    """
    sites = len(schedule.sites)
    if schedule.doubly_stochastic:
        return np.full(sites, 1 / sites)
    if schedule.period is None:
        return None
    product = functools.reduce(lambda done, matrix: matrix @ done, _some_rounds(schedule))
    equations = vstack([csr_array(product.T - eye_array(sites))[:-1], csr_array(np.ones((1, sites)))])
    right_side = np.zeros(sites)
    right_side[-1] = 1
    if sites <= DENSE_SITES:
        return np.asarray(np.linalg.solve(equations.toarray(), right_side))
    return np.asarray(spsolve(equations.tocsc(), right_side))


def spectral_gap(schedule: Schedule) -> float | None:
    """1 less the second largest eigenvalue modulus of the mixing matrix; None for random rounds.

    Of a periodic schedule it is 1 - r^(1/p), with r that of the product of its p matrices: the mean gain
    of a round. 1 stands for the exact mean after one period, 0 for no convergence.
    """
    limit = influence(schedule)
    if schedule.period is None or limit is None:
        return None
    matrices = list(_some_rounds(schedule))
    if len(schedule.sites) <= DENSE_SITES:
        second = _second_eigenvalue(matrices)
    else:
        second = _largest_deflated_eigenvalue(matrices, limit)
    return 1.0 if second < NEGLIGIBLE else max(0.0, 1 - second ** (1 / schedule.period))


def consensus_distances(schedule: Schedule) -> Iterator[float]:
    """Consensus distance before round 0, after it, after round 1 and so on, relative to the first.

    Starts from random bodies. The consensus distance is the root mean square distance of the sites' bodies
    from their mean.
    """
    bodies = derive(0, "consensus distance").standard_normal((len(schedule.sites), VECTORS))
    bodies -= bodies.mean(axis=0)
    start = np.sqrt(np.mean(bodies**2))
    for round_index in itertools.count():
        yield float(np.sqrt(np.mean((bodies - bodies.mean(axis=0)) ** 2)) / start)
        bodies = schedule.mixing(round_index) @ bodies


def rounds_to_shrink(schedule: Schedule, factor: float, limit: int = ROUND_LIMIT) -> int | None:
    """Rounds until the consensus distance of random bodies is ``factor`` times smaller.

    Found by mixing, so that it holds for periodic and random schedules as well. None beyond ``limit`` rounds.
    """
    distances = itertools.islice(consensus_distances(schedule), limit + 1)
    return next((rounds for rounds, distance in enumerate(distances) if distance <= 1 / factor), None)


def mean_reached(schedule: Schedule) -> str:
    """What the sites converge to and why, in a sentence or two."""
    sites = len(schedule.sites)
    if schedule.doubly_stochastic:
        return "Doubly stochastic: the sites converge to the plain mean of their bodies, all count the same."
    weights = influence(schedule)
    if weights is None:
        return (
            "Not doubly stochastic: rows sum to one, columns only on average. All sites count the same on average, "
            "but a run converges to a mean whose weights are drawn by chance."
        )
    weights = weights.round(12)  # of sites that share the extreme the first is named
    least, most = int(weights.argmin()), int(weights.argmax())
    because = (
        "By choice not doubly stochastic: the sites converge to the mean weighted by samples."
        if schedule.weighting == "samples"
        else "Not doubly stochastic: the sites converge to a weighted mean, not to the plain one."
    )
    return (
        f"{because} Long-run influence: least {weights[least]:.2%} ({schedule.sites[least]}), "
        f"most {weights[most]:.2%} ({schedule.sites[most]}); an equal share is {1 / sites:.2%}."
    )


def _some_rounds(schedule: Schedule) -> Iterator[csr_array]:
    """The matrices of one period, or of the first rounds of a random schedule."""
    return (schedule.mixing(round_index) for round_index in range(schedule.period or RANDOM_ROUNDS))


def edges_between(matrix: csr_array) -> csr_array:
    """The part of a mixing matrix that crosses from one site to another."""
    links = matrix.tocoo()
    row, column = links.coords
    crosses = (row != column) & (links.data != 0)
    return csr_array((links.data[crosses], (row[crosses], column[crosses])), shape=matrix.shape)


def _second_eigenvalue(matrices: list[csr_array]) -> float:
    product = functools.reduce(lambda done, matrix: matrix @ done, matrices[1:], matrices[0].toarray())
    symmetric = np.allclose(product, product.T, rtol=0, atol=1e-12)
    values = eigvalsh(product) if symmetric else eigvals(product)
    return float(np.sort(np.abs(values))[-2])


def _largest_deflated_eigenvalue(matrices: list[csr_array], limit: NDArray[np.float64]) -> float:
    """Largest eigenvalue modulus of the product less its limit 1 limit^T, by Arnoldi iteration on sparse products."""
    sites = matrices[0].shape[0]

    def mix(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        mixed = functools.reduce(lambda body, matrix: matrix @ body, matrices, vector)
        return np.asarray(mixed - limit @ vector)

    start = derive(0, "spectral gap").standard_normal(sites)
    if np.linalg.norm(mix(start)) < NEGLIGIBLE * np.linalg.norm(start):
        return 0.0
    operator = LinearOperator((sites, sites), matvec=mix, dtype=np.float64)
    try:
        values = eigs(operator, k=1, ncv=64, v0=start, tol=1e-6, maxiter=1000, return_eigenvectors=False)
    except ArpackNoConvergence as error:
        values = error.eigenvalues
    return float(np.abs(values).max(initial=0))
