"""Neighbours are kept together, ranks have as much to do, and bodies cross from rank to rank as the matrix says."""

import threading
from collections.abc import Mapping
from queue import Queue
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from flop_p2p.config import TopologySettings
from flop_p2p.errors import ConfigError, RunError
from flop_p2p.simulation import METHODS, exchange
from flop_p2p.simulation.exchange import GossipExchange, build_exchange
from flop_p2p.simulation.placement import even_blocks, place, together, transfers
from flop_p2p.simulation.ranks import Ranks
from flop_p2p.topology import Schedule, build_schedule
from flop_p2p.topology.analysis import edges_between


class Thread(Ranks):
    """A rank that is a thread; counts the rows that it sends."""

    def __init__(self, rank: int, count: int, post: dict[tuple[int, int], "Queue[Tensor]"]) -> None:
        self.rank, self.count, self.sent = rank, count, 0
        self._post = post

    def swap(self, outgoing: Mapping[int, Tensor], incoming: Mapping[int, Tensor]) -> None:
        for rank, tensor in outgoing.items():
            self._post[self.rank, rank].put(tensor.clone())
            self.sent += len(tensor)
        for rank, tensor in incoming.items():
            tensor.copy_(self._post[rank, self.rank].get(timeout=10))


def threads(count: int) -> list[Thread]:
    post: dict[tuple[int, int], Queue[Tensor]] = {(a, b): Queue() for a in range(count) for b in range(count)}
    return [Thread(rank, count, post) for rank in range(count)]


def schedule_of(topology: str, sites: int) -> Schedule:
    return build_schedule(TopologySettings(name=topology), [f"site-{index:04}" for index in range(sites)])


def mixed(schedule: Schedule, bodies: Tensor, rounds: int, count: int) -> tuple[Tensor, int]:
    """The bodies after so many rounds of mixing by ``count`` ranks, and how many rows travelled."""
    result = bodies.clone()
    ranks = threads(count)

    def run(own: Thread) -> None:
        placement = place(own, [1] * len(bodies), schedule)
        gossip, rows = GossipExchange(schedule, placement), bodies[placement.own].clone()
        for index in range(rounds):
            gossip.mix(rows, index)
        result[placement.own] = rows

    workers = [threading.Thread(target=run, args=(own,)) for own in ranks]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return result, sum(own.sent for own in ranks)


@pytest.mark.parametrize("count", [2, 3, 5])
@pytest.mark.parametrize("topology", ["ring", "star", "one-peer-exponential", "base:2", "epidemic:2", "exponential"])
def test_ranks_mix_to_the_bit_what_one_process_mixes(topology: str, count: int) -> None:
    schedule = schedule_of(topology, 11)
    bodies = torch.from_numpy(np.random.default_rng(0).normal(size=(11, 50)).astype(np.float32))
    alone = bodies.clone()
    gossip = GossipExchange(schedule, together(11))
    for index in range(4):
        gossip.mix(alone, index)
    spread, _ = mixed(schedule, bodies, 4, count)
    assert not torch.equal(alone, bodies)
    assert torch.equal(spread, alone)


def test_many_neighbours_are_mixed_to_rounding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exchange, "CROSSING_BYTES", 4 * 20 * 30)
    monkeypatch.setattr(exchange, "LEAST_WIDTH", 1)  # of 50 numbers 30 travel, then 20
    bodies = torch.rand(20, 50)
    spread, rows = mixed(schedule_of("full", 20), bodies, 1, 3)
    torch.testing.assert_close(spread, bodies.mean(dim=0).expand(20, 50), rtol=1e-6, atol=0)
    assert rows == 2 * 20 * 2  # each of 20 bodies to two other ranks, in two blocks


@pytest.mark.parametrize(
    ("topology", "rounds", "expected"), [("ring", 1, 4), ("star", 1, 5), ("one-peer-exponential", 3, 4 + 4 + 4)]
)
def test_each_body_travels_once_to_every_rank_that_needs_it(topology: str, rounds: int, expected: int) -> None:
    schedule = schedule_of(topology, 8)
    blocks = place(threads(2)[0], [1] * 8, schedule).blocks
    _, sent = mixed(schedule, torch.rand(8, 3), rounds, 2)
    assert sent == transfers([edges_between(schedule.mixing(index)) for index in range(rounds)], blocks) == expected


@pytest.mark.parametrize(("topology", "times"), [("ring", 20), ("torus", 2)])
@pytest.mark.parametrize("shuffled", [False, True])
def test_far_fewer_bodies_cross_ranks_than_by_chance(topology: str, times: float, shuffled: bool) -> None:
    schedule = schedule_of(topology, 256)
    if shuffled:
        order = np.random.default_rng(1).permutation(256)
        matrix = schedule.mixing(0)[order][:, order].tocsr()
        matrix.sort_indices()
        schedule = Schedule("shuffled", schedule.sites, 1, True, "uniform", lambda _: matrix)
    edges = [edges_between(schedule.mixing(0))]
    ours = place(threads(4)[0], [3] * 256, schedule).blocks
    chance = np.split(np.random.default_rng(0).permutation(256), 4)
    assert transfers(edges, ours) * (1.5 if shuffled and topology == "torus" else times) < transfers(edges, chance)
    again = place(threads(4)[2], [3] * 256, schedule).blocks
    assert all(np.array_equal(a, b) for a, b in zip(ours, again, strict=True))


@given(st.lists(st.integers(1, 50), min_size=1, max_size=40), st.integers(1, 8), st.integers(0, 9))
def test_blocks_are_even_and_never_empty(steps: list[int], count: int, seed: int) -> None:
    count = min(count, len(steps))
    order = np.random.default_rng(seed).permutation(len(steps))
    blocks = even_blocks(order, steps, count)
    assert np.array_equal(np.concatenate(blocks), order)
    assert len(blocks) == count
    assert all(len(block) for block in blocks)
    if len(steps) >= 2 * count and max(steps) == min(steps):
        assert max(map(len, blocks)) - min(map(len, blocks)) <= 1


def test_large_sites_do_not_all_fall_to_one_rank() -> None:
    blocks = even_blocks(np.arange(6), [100, 1, 1, 1, 1, 96], 2)
    assert [block.tolist() for block in blocks] == [[0], [1, 2, 3, 4, 5]]


def test_what_cannot_be_spread_is_refused(experiment: Any) -> None:
    with pytest.raises(RunError, match="5 processes for 4 sites"):
        place(threads(5)[0], [1, 1, 1, 1])
    with pytest.raises(ConfigError, match="pooled trains one model in one process"):
        build_exchange(METHODS["pooled"], experiment(), list("abcd"), [1] * 4, threads(2)[0])
