"""Members are half of every site's records, drawn in opposite pairs of worlds; what is published is not yet mixed."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flop_p2p.audit.membership.worlds import draw_candidates, train_world
from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.data import FederatedData, SiteSplit
from flop_p2p.errors import DataError
from flop_p2p.simulation import load_data


def small(**overrides: Any) -> ExperimentSettings:
    values = {"data.source": "breast-cancer", "data.limit_images": 120, "data.sites": 4, "training.rounds": 2}
    return load_experiment(overrides=values | {key.replace("__", "."): value for key, value in overrides.items()})


def of_patients(make_data: Any, patients: list[int]) -> FederatedData:
    """One site whose records are of these patients."""
    data = make_data([number % 3 for number in range(len(patients))])
    dataset = replace(data.dataset, patients=np.array([f"patient {number}" for number in patients]))
    return replace(data, dataset=dataset, sites=(SiteSplit("north", np.arange(len(patients)), *[np.arange(0)] * 2),))


@given(patients=st.lists(st.integers(0, 8), min_size=2, max_size=40), seed=st.integers(0, 99))
def test_every_record_is_a_member_in_half_of_the_worlds_with_all_of_its_patient(
    make_data: Any, patients: list[int], seed: int
) -> None:
    if len(set(patients)) < 2:
        return
    (site,) = draw_candidates(of_patients(make_data, patients), 18, seed)
    assert site.member.shape == (18, len(patients))
    assert (site.member.sum(axis=0) == 9).all()
    assert (site.member[0::2] == ~site.member[1::2]).all(), "the worlds of a pair have opposite members"
    for world in site.member:
        assert 0 < world.sum() < len(patients)
        assert all(len(set(world[np.array(patients) == patient])) == 1 for patient in set(patients))


@given(count=st.integers(2, 60), seed=st.integers(0, 99))
def test_where_patients_have_one_record_each_half_of_the_records_are_members(
    make_data: Any, count: int, seed: int
) -> None:
    (site,) = draw_candidates(of_patients(make_data, list(range(count))), 18, seed)
    assert set(site.member.sum(axis=1)) <= {count // 2, (count + 1) // 2}


def test_who_is_a_member_of_one_pair_tells_nothing_of_another(make_data: Any) -> None:
    (site,) = draw_candidates(of_patients(make_data, list(range(400))), 18, 0)
    agree = (site.member[0::2][:, None] == site.member[0::2][None]).mean(axis=2)
    apart = agree[~np.eye(9, dtype=bool)]
    assert abs(apart.mean() - 0.5) < 0.02
    assert apart.max() < 0.65, "equal halves would tell more"


def test_a_site_with_one_patient_is_refused(make_data: Any) -> None:
    with pytest.raises(DataError, match=r"^site north has records of one patient only"):
        draw_candidates(of_patients(make_data, [4, 4, 4]), 18, 0)


def test_all_records_of_a_site_are_candidates_and_members_alone_train() -> None:
    settings = small()
    data = load_data(settings)
    candidates = draw_candidates(data, 18, 0)
    for site, found in zip(data.sites, candidates, strict=True):
        everything = np.sort(np.concatenate([site.train, site.validation, site.test]))
        assert (found.indices == everything).all()
        split = found.split(3)
        assert (split.train == everything[found.member[3]]).all()
        assert not set(split.train) & set(split.test)
        assert len(split.train) + len(split.test) == len(everything)


@pytest.mark.parametrize("method", ["p2p-flop", "dfedavg", "flop"])
def test_the_published_body_is_the_one_before_mixing(method: str) -> None:
    settings = small(method=method)
    data = load_data(settings)
    world = train_world(settings, data, draw_candidates(data, 18, 0), 0)
    mixed = world.simulation.population.bodies
    assert not torch.allclose(world.published, mixed, rtol=1e-3)
    again = world.published.clone()
    world.simulation.exchange.mix(again, settings.training.rounds - 1)
    torch.testing.assert_close(again, mixed, rtol=1e-6, atol=1e-7)


def test_a_site_that_the_server_left_out_last_keeps_what_it_published_before() -> None:
    settings = small(method="flop", training__participation=0.5, training__rounds=3)
    data = load_data(settings)
    world = train_world(settings, data, draw_candidates(data, 18, 0), 0)
    exchange = world.simulation.exchange
    last = {site: max((r for r in range(3) if site in exchange.trains(r)), default=None) for site in range(4)}
    waited = [site for site, seen in last.items() if seen is not None and seen < 2]
    assert waited, "the draw must leave out a site that was drawn before"
    mixed = world.simulation.population.bodies[0]
    assert not any(torch.equal(world.published[site], mixed) for site in waited)


def test_worlds_begin_alike_and_draw_on_their_own() -> None:
    settings = small(training__lr=1e-30)
    data = load_data(settings)
    candidates = draw_candidates(data, 18, 0)
    first, other = (train_world(settings, data, candidates, world) for world in (0, 1))
    assert torch.equal(first.published, other.published), "without training, the initial bodies are left"
    learners = [world.simulation.work.learners[0] for world in (first, other)]
    steps = [np.concatenate(learner.batches(0)) for learner in learners]
    order = [np.argsort(np.argsort(step)).tolist() for step in steps]
    assert order[0] != order[1]


def test_a_world_is_the_same_each_time() -> None:
    settings = small()
    data = load_data(settings)
    candidates = draw_candidates(data, 18, 0)
    first, again = (train_world(settings, data, candidates, 5) for _ in range(2))
    assert torch.equal(first.published, again.published)
    assert first.accuracy == again.accuracy
