"""Distances, who looks at what, and what a masked sum is made of."""

import numpy as np
import pytest
from scipy.sparse import csr_array

from flop_p2p.audit.membership.views import Position, build_views, distances, gossip_views
from flop_p2p.config import TopologySettings, load_experiment
from flop_p2p.simulation import Simulation, load_data
from flop_p2p.topology import Schedule, build_schedule
from flop_p2p.topology.analysis import edges_between


def schedule(name: str, sites: int) -> Schedule:
    return build_schedule(TopologySettings(name=name), [f"site-{number}" for number in range(sites)])


def hops(name: str, sites: int) -> np.ndarray:
    return distances(edges_between(schedule(name, sites).mixing(0)))


def test_distances_on_a_ring() -> None:
    apart = np.abs(np.subtract.outer(np.arange(8), np.arange(8)))
    assert (hops("ring", 8) == np.minimum(apart, 8 - apart)).all()


def test_distances_on_a_full_mesh() -> None:
    assert (hops("full", 6) == 1 - np.eye(6)).all()


def test_distances_follow_the_direction_of_edges() -> None:
    receives_from_previous = csr_array(np.roll(np.eye(4), 1, axis=0))
    assert distances(receives_from_previous)[0].tolist() == [0, 1, 2, 3]


def test_on_a_ring_an_attacker_looks_at_the_neighbour_on_the_way_to_the_victim() -> None:
    found = gossip_views(schedule("ring", 8), 5)
    plain = [view for view in found if not view.position.masked and view.victim == 6]
    assert [view.position for view in plain] == [Position("neighbour", distance) for distance in (1, 2, 3, 4)]
    assert [view.attacker for view in plain] == [7, 0, 1, 2]
    assert [int(view.weights.argmax()) for view in plain] == [6, 7, 0, 1]
    assert all(view.weights.sum() == 1 and np.count_nonzero(view.weights) == 1 for view in plain)


@pytest.mark.parametrize("name", ["ring", "full", "torus"])
def test_under_masking_an_attacker_holds_the_weighted_sum_of_its_neighbours(name: str) -> None:
    some = schedule(name, 9)
    W = some.mixing(0).toarray()
    masked = [view for view in gossip_views(some, 5) if view.position.masked]
    assert len(masked) == len({(view.victim, view.position.distance) for view in masked}) > 0
    for view in masked:
        row = W[view.attacker].copy()
        row[view.attacker] = 0
        np.testing.assert_allclose(view.weights, row / row.sum(), atol=1e-12)
        assert view.position.distance != 1 or view.weights[view.victim] > 0


def test_in_a_full_mesh_everybody_is_one_hop_away() -> None:
    found = gossip_views(schedule("full", 5), 5)
    assert {view.position.distance for view in found} == {1}
    assert len(found) == 10


@pytest.mark.parametrize(("name", "sites"), [("ring", 2), ("one-peer-exponential", 8)])
def test_no_sum_of_one_body_and_none_where_neighbours_change(name: str, sites: int) -> None:
    found = gossip_views(schedule(name, sites), 6)
    assert found
    assert not any(view.position.masked for view in found)


def test_distances_count_the_edges_of_all_rounds() -> None:
    found = gossip_views(schedule("one-peer-exponential", 8), 3)
    assert {view.position.distance for view in found} == {1, 2, 3}
    assert {view.position.distance for view in gossip_views(schedule("one-peer-exponential", 8), 1)} == set(range(1, 8))


def test_a_server_holds_what_a_site_sent_and_other_sites_hold_the_mean() -> None:
    settings = load_experiment(
        overrides={
            "method": "flop",
            "data.partition": "quantity:2",
            "data.sites": 4,
            "data.limit_images": 200,
            "topology.weighting": "samples",
        }
    )
    data = load_data(settings)
    simulation = Simulation(settings, data, data.sites)
    found = build_views(simulation)
    server = [view for view in found if view.position == Position("server", 1)]
    assert [view.weights.tolist() for view in server] == np.eye(4).tolist()
    counts = np.array([len(site.train) for site in data.sites])
    others = [view for view in found if view.position == Position("other site", 2)]
    assert len(others) == 4
    for view in others:
        np.testing.assert_allclose(view.weights, counts / counts.sum(), rtol=1e-6)
        assert view.attacker != view.victim


def test_of_a_site_alone_its_model_is_looked_at_as_if_given_away() -> None:
    settings = load_experiment(overrides={"method": "local", "data.sites": 3, "data.limit_images": 90})
    data = load_data(settings)
    found = build_views(Simulation(settings, data, data.sites))
    assert [view.position for view in found] == [Position("anyone")] * 3
    assert [view.weights.tolist() for view in found] == np.eye(3).tolist()
