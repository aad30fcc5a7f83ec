"""Base-(k+1) graphs: the exact mean of any number of sites in few rounds, with at most k neighbours a round.

Takezawa, Sato, Bao, Niwa and Yamada, "Beyond Exponential Graph: Communication-Efficient Topologies for
Decentralized Learning via Finite-time Convergence", NeurIPS 2023 (arXiv 2305.11420): Algorithm 1 is the
k-peer hyper-hypercube graph, Algorithm 2 the simple Base-(k+1) graph, Algorithm 3 the Base-(k+1) graph.
"""

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from scipy.sparse import coo_array, csr_array

Link = tuple[int, int, float]  # two sites and the weight that each gives to the other
Round = list[Link]


def base_graph(sites: int, degree: int) -> tuple[csr_array, ...]:
    """The mixing matrices ``[sites, sites]`` of one period of the Base-(k+1) graph, k = ``degree`` (Algorithm 3).

    Each is symmetric and doubly stochastic with at most ``degree`` links a site; their product is the
    exact mean. A period is at most 2 log_{k+1}(n) + 2 rounds.

    The sites are cut into p equal groups, where p holds all factors of n up to k+1. The groups average
    by Algorithm 2, then teams of one site from each group by Algorithm 1, unless Algorithm 2 alone is shorter.
    """
    everyone = range(sites)
    smooth, size = _smooth_part(sites, degree + 1)
    groups = [everyone[start : start + size] for start in range(0, sites, size)]
    teams = [everyone[start::size] for start in range(size)]
    inside = _side_by_side(_simple_base(group, degree) for group in groups)
    across = _side_by_side(_hyper_hypercube(team, degree) for team in teams)
    simple = _simple_base(everyone, degree)
    rounds = simple if smooth == 1 or len(simple) < len(inside) + len(across) else inside + across
    return tuple(_matrix(links, sites) for links in rounds)


def _hyper_hypercube(sites: Sequence[int], degree: int) -> list[Round]:
    """Algorithm 1: n = f_1 f_2 ... with factors up to k+1; in round l teams of f_l sites take their mean."""
    factors = _fewest_factors(len(sites), degree + 1)
    if factors is None:
        raise ValueError(f"{len(sites)} has a prime factor above {degree + 1}")
    rounds: list[Round] = []
    stride = 1
    for factor in factors:
        firsts = [i for i in range(len(sites)) if i // stride % factor == 0]
        rounds.append([link for i in firsts for link in _team([sites[i + m * stride] for m in range(factor)])])
        stride *= factor
    return rounds


def _simple_base(sites: Sequence[int], degree: int) -> list[Round]:
    """Algorithm 2, for n = a_1 (k+1)^p_1 + a_2 (k+1)^p_2 + ... with p_1 > p_2 > ... and every a_l <= k.

    The sites are cut into parts of a_l (k+1)^p_l. First every part averages by itself. Then one part after
    the other hands the mean of its rest to its a_l blocks of (k+1)^p_l sites: each site of the later parts
    meets one site of every block, which leaves each block, and the later parts, with the mean of all. The
    block then averages by itself. Parts that are done repeat their rounds, and sites of a part that meet
    nobody average in teams: in pure averaging this changes nothing, in training it keeps them close.
    """
    if _fewest_factors(len(sites), degree + 1) is not None:
        return _hyper_hypercube(sites, degree)
    blocks_of_parts = _blocks(sites, degree + 1)
    parts = [list(itertools.chain(*blocks)) for blocks in blocks_of_parts]
    averaging = _hyper_hypercube(parts[0], degree)
    period = len(averaging) + 1 + len(_hyper_hypercube(blocks_of_parts[0][0], degree))
    rounds: list[Round] = [[] for _ in range(period)]
    for position, (part, blocks) in enumerate(zip(parts, blocks_of_parts, strict=True)):
        later = list(itertools.chain(*parts[position + 1 :]))
        meeting = len(averaging) + position
        _repeat(rounds[: len(averaging)], _hyper_hypercube(part, degree))
        if later:
            rounds[meeting] += _meeting(part, blocks, later, degree)
            inside = _side_by_side(_hyper_hypercube(block, degree) for block in blocks)
            _repeat(rounds[meeting + 1 :], inside)
        else:
            _repeat(rounds[meeting:], _hyper_hypercube(part, degree))
    return rounds


def _meeting(part: Sequence[int], blocks: Sequence[Sequence[int]], later: Sequence[int], degree: int) -> Round:
    """Each site of ``later`` meets one site of every block; the others of the part average in teams."""
    weight = len(blocks[0]) / (len(part) + len(later))
    met = [(other, site, weight) for block in blocks for other, site in zip(later, block, strict=False)]
    idle = [site for block in blocks for site in block[len(later) :]]
    teams = (idle[start : start + degree + 1] for start in range(0, len(idle), degree + 1))
    return met + [link for team in teams for link in _team(team)]


def _team(sites: Sequence[int]) -> Iterator[Link]:
    """Everyone with everyone, so that all hold the mean of the team."""
    return ((a, b, 1 / len(sites)) for a, b in itertools.combinations(sites, 2))


def _repeat(rounds: Sequence[Round], cycle: Sequence[Round]) -> None:
    """Add the rounds of ``cycle`` to ``rounds``, again and again; nothing if it is empty."""
    if cycle:
        for links, more in zip(rounds, itertools.cycle(cycle), strict=False):
            links += more


def _side_by_side(parallel: Iterable[list[Round]]) -> list[Round]:
    """Schedules of equal length over disjoint sites, run at the same time."""
    return [list(itertools.chain(*rounds)) for rounds in zip(*parallel, strict=True)]


def _blocks(sites: Sequence[int], base: int) -> list[list[Sequence[int]]]:
    """The sites cut by the digits of their number in ``base``: digit times a block of base^place, highest first."""
    size = 1
    while size * base <= len(sites):
        size *= base
    parts: list[list[Sequence[int]]] = []
    start = 0
    while size:
        count = (len(sites) - start) // size
        if count:
            parts.append([sites[start + i * size : start + (i + 1) * size] for i in range(count)])
            start += count * size
        size //= base
    return parts


@functools.cache
def _fewest_factors(number: int, largest: int) -> tuple[int, ...] | None:
    """The fewest factors from 2 to ``largest`` whose product is ``number``, or None if there are none."""
    if number == 1:
        return ()
    found = [
        (factor, *rest)
        for factor in range(min(largest, number), 1, -1)
        if number % factor == 0 and (rest := _fewest_factors(number // factor, largest)) is not None
    ]
    return min(found, key=len, default=None)


def _smooth_part(number: int, largest: int) -> tuple[int, int]:
    """``number`` as p times q, where p holds all its prime factors up to ``largest``."""
    rest = number
    for factor in range(2, largest + 1):
        while rest % factor == 0:
            rest //= factor
    return number // rest, rest


def _matrix(links: Round, sites: int) -> csr_array:
    """The symmetric mixing matrix of one round; what a site gives to nobody it gives to itself."""
    first = np.array([link[0] for link in links], dtype=np.int64)
    second = np.array([link[1] for link in links], dtype=np.int64)
    weights = np.array([link[2] for link in links])
    own = 1 - np.bincount(first, weights, sites) - np.bincount(second, weights, sites)
    everyone = np.arange(sites)
    row = np.concatenate([first, second, everyone])
    column = np.concatenate([second, first, everyone])
    matrix = csr_array(coo_array((np.concatenate([weights, weights, own]), (row, column)), shape=(sites, sites)))
    matrix.sort_indices()
    return matrix
