"""Who trains, what is mixed and how many bodies travel."""

from typing import Any

import numpy as np
import pytest
import torch

from flop_p2p.errors import TopologyError
from flop_p2p.simulation import METHODS
from flop_p2p.simulation.exchange import NoExchange, ServerExchange, build_exchange

NAMES = ["a", "b", "c", "d"]


def test_nothing_is_exchanged_alone() -> None:
    exchange = NoExchange(3)
    bodies = torch.rand(3, 5)
    before = bodies.clone()
    exchange.mix(bodies, 0)
    assert torch.equal(bodies, before)
    assert exchange.messages(0).sum() == 0


def test_server_takes_a_fraction_and_averages_only_those() -> None:
    exchange = ServerExchange([1, 2, 3, 4, 5], fraction=0.4, seed=0)
    seen = set()
    for round_index in range(20):
        chosen = exchange.trains(round_index)
        assert len(chosen) == 2
        assert list(chosen) == sorted(set(chosen))
        seen |= set(chosen.tolist())
        bodies = torch.arange(5.0).repeat(3, 1).T.contiguous()
        exchange.mix(bodies, round_index)
        weights = chosen + 1
        expected = float((weights * chosen).sum() / weights.sum())
        torch.testing.assert_close(bodies, torch.full((5, 3), expected))
    assert seen == set(range(5))


def test_server_counts_uploads_and_downloads() -> None:
    messages = ServerExchange([1] * 5, fraction=0.4, seed=0).messages(3)
    assert messages.sum() == 2 * (2 + 5)  # two uploads, five downloads, each seen at both ends
    assert messages[-1] == 7
    assert sorted(messages[:-1]) == [1, 1, 1, 2, 2]


def test_ring_counts_two_neighbours(experiment: Any) -> None:
    exchange = build_exchange(METHODS["p2p-flop"], experiment(topology__name="ring"), NAMES, [1, 2, 3, 4])
    assert exchange.messages(0).tolist() == [4, 4, 4, 4]


def test_busiest_participant_of_a_star_is_its_centre(experiment: Any) -> None:
    exchange = build_exchange(METHODS["dfedavg"], experiment(topology__name="star"), NAMES, [1, 2, 3, 4])
    assert sorted(exchange.messages(0).tolist()) == [2, 2, 2, 6]


def test_sample_weights_reach_server_and_gossip_alike(experiment: Any) -> None:
    settings = experiment(topology__name="full", topology__weighting="samples")
    samples = [10, 20, 30, 40]
    gossip = build_exchange(METHODS["p2p-flop"], settings, NAMES, samples)
    server = build_exchange(METHODS["flop"], settings, NAMES, samples)
    bodies = torch.from_numpy(np.random.default_rng(0).normal(size=(4, 9)).astype(np.float32))
    other = bodies.clone()
    gossip.mix(bodies, 0)
    server.mix(other, 0)
    torch.testing.assert_close(bodies, other)


def test_sample_weights_are_refused_where_they_are_undefined(experiment: Any) -> None:
    settings = experiment(topology__name="one-peer-exponential", topology__weighting="samples")
    with pytest.raises(TopologyError, match="uniform"):
        build_exchange(METHODS["p2p-flop"], settings, NAMES, [1, 2, 3, 4])
