"""Sites that join after training keep the body they adopt and train their own head."""

from typing import Any

import pytest
import torch
from torch import nn

from flop_p2p.errors import ConfigError
from flop_p2p.partial import flatten
from flop_p2p.simulation import Simulation, load_data
from flop_p2p.simulation.late import draw_late_sites, join_late


def late_model(experiment: Any, monkeypatch: pytest.MonkeyPatch, method: str) -> tuple[Simulation, nn.Module]:
    """A simulation after two rounds, and the model of the one site that joined late."""
    settings = experiment(method=method, late_sites=1)
    data = load_data(settings)
    present, late = draw_late_sites(settings, data.sites)
    assert len(present) == 3
    run = Simulation(settings, data, present)
    for _ in range(2):
        run.run_round(lambda: False)
        run.progress.trained = {}
    models = []
    monkeypatch.setattr(run.work, "evaluate_model", lambda model, *_: models.append(model) or {})
    assert list(join_late(run, late)) == [late[0].name]
    return run, models[0]


@pytest.mark.parametrize("method", ["p2p-flop", "flop", "pooled"])
def test_the_body_is_a_neighbours_and_the_head_its_own(
    experiment: Any, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    run, model = late_model(experiment, monkeypatch, method)
    split = run.population.split
    body = flatten(model, split.body)
    assert any(torch.equal(body, other) for other in run.population.bodies)
    assert not any(torch.equal(flatten(model, split.head), other) for other in run.population.heads)


def test_a_pooled_head_is_the_start_of_a_late_one(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = late_model(experiment, monkeypatch, "pooled")
    head, start = flatten(model, run.population.split.head), flatten(run.blueprint.template, run.population.split.head)
    assert (head - run.population.heads[0]).norm() < (head - start).norm()


def test_alone_there_is_no_body_to_adopt(experiment: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    run, model = late_model(experiment, monkeypatch, "local")
    start = flatten(run.blueprint.template, run.population.split.body)
    body = flatten(model, run.population.split.body)
    assert not torch.equal(body, start)
    assert not any(torch.equal(body, other) for other in run.population.bodies)


def test_too_many_late_sites_are_refused(experiment: Any) -> None:
    settings = experiment(late_sites=3)
    with pytest.raises(ConfigError, match="fewer than 2 of 4"):
        draw_late_sites(settings, load_data(settings).sites)
