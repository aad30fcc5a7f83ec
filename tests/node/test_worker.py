"""The model of one site: what it computes is what a simulation computes, and its body is all that it gives away."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from flop_p2p.errors import ConfigError, ModelError, NodeError, SplitError, TrainingError
from flop_p2p.learning import Partway
from flop_p2p.models import build_model
from flop_p2p.node.checkpoint import Checkpoints, Progress
from flop_p2p.node.worker import SiteModel
from flop_p2p.topology import build_schedule

MakeHospitals = Callable[..., Any]

never = lambda: False  # noqa: E731


def relative(value: torch.Tensor, expected: torch.Tensor) -> float:
    return float((value - expected).norm() / expected.norm())


def same_figure(value: Any, expected: Any) -> bool:
    return bool(value == (pytest.approx(expected, rel=1e-5) if isinstance(expected, float) else expected))


def state(model: SiteModel, path: Path) -> dict[str, torch.Tensor]:
    """All tensors of the model, as they are saved."""
    model.save_model(path / "state.safetensors")
    return load_file(path / "state.safetensors")


# Like the simulator

VARIANTS: list[dict[str, Any]] = [
    {"data__source": "breast-cancer", "model__name": "mlp", "topology__weighting": "samples"},
    {
        "model__name": "small-cnn",
        "data__image_size": 16,
        "method": "p2p-flop-alt",
        "training__optimizer": "adam",
        "training__lr": 0.002,
        "training__augmentation": ("crop:2", "horizontal-flip"),
        "training__head_loss": "logit-adjusted",
    },
    {"model__private": ("body.3.*", "head.*"), "training__optimizer_state": "reset", "seed": 5},
]


@pytest.mark.parametrize("overrides", VARIANTS, ids=["table", "alternating", "private"])
def test_two_rounds_are_those_of_a_simulation(hospitals: MakeHospitals, overrides: dict[str, Any]) -> None:
    three = hospitals(**overrides)
    simulation, models = three.simulation(), three.models()
    names = [model.name for model in models]
    counts = [model.samples["train"] for model in models]
    assert counts == [len(site.train) for site in simulation.sites]
    schedule = build_schedule(three.settings.topology, names, counts, three.settings.seed)
    for model, body, head in zip(models, simulation.population.bodies, simulation.population.heads, strict=True):
        assert torch.equal(model.body, body)
        assert torch.equal(model.head, head)
    for round_index in range(2):
        simulation.run_round(never)
        lines = simulation.round_lines()
        losses = [model.train(round_index, never) for model in models]
        assert losses == pytest.approx([line["train_loss"] for line in lines], rel=1e-6)
        published = [model.publish(round_index).body for model in models]
        weights = schedule.mixing(round_index).toarray()
        for model, row in zip(models, weights, strict=True):
            own = names.index(model.name)
            parts = [(names[j], float(row[j]), published[j]) for j in np.flatnonzero(row) if j != own]
            model.mix(model.name, float(row[own]), parts[::-1])
    for position, model in enumerate(models):
        assert relative(model.body, simulation.population.bodies[position]) < 1e-6
        assert relative(model.head, simulation.population.heads[position]) < 1e-6
        for part, figures in model.evaluate().items():
            expected = lines[position][part]
            assert figures.keys() == expected.keys()
            assert all(same_figure(value, expected[name]) for name, value in figures.items())
    assert not torch.equal(models[0].head, models[1].head)
    assert relative(models[0].body, models[0].body.roll(1)) > 0.1, "a relative distance of 1e-6 must be small"


def test_figures_use_the_prior_of_the_site(hospitals: MakeHospitals) -> None:
    figures = hospitals(training__head_loss="logit-adjusted").model().evaluate()
    assert "accuracy_without_prior" in figures["test"]
    assert "accuracy_without_prior" not in hospitals().model().evaluate()["test"]


def test_all_sites_start_from_one_body(hospitals: MakeHospitals) -> None:
    three = hospitals(server=True)
    models = [three.model(name) for name in three.sites]
    assert len({model.body_hash for model in models}) == 1
    assert len({model.schema_hash for model in models}) == 1
    first = models[0]
    assert first.body_hash == hashlib.sha256(first.body.numpy().tobytes()).digest()
    assert first.schema_hash.hex() == first.split.body.sha256
    first.train(0, never)
    assert first.body_hash == models[1].body_hash, "the hash is of the initial body for good"
    assert three.model(seed=1).body_hash != first.body_hash


# The body, and nothing else


def test_a_published_body_is_never_written_again(hospitals: MakeHospitals) -> None:
    model = hospitals().model()
    model.train(0, never)
    outgoing = model.publish(0)
    before = outgoing.body.tobytes()
    assert outgoing.round == 0
    assert outgoing.sha256 == hashlib.sha256(before).digest()
    assert outgoing.body.dtype == np.float32
    assert outgoing.body.shape == (model.split.body.parameters,)
    assert np.array_equal(outgoing.body, model.body.numpy())
    with pytest.raises(ValueError, match="read-only"):
        outgoing.body[0] = 1
    model.train(1, never)
    assert outgoing.body.tobytes() == before
    assert model.publish(1).sha256 != outgoing.sha256


def test_another_head_leaves_every_published_byte(hospitals: MakeHospitals) -> None:
    model = hospitals().model()
    model.train(0, never)
    before = model.publish(0)
    model.head += 1
    assert model.publish(0).sha256 == before.sha256


def test_body_and_head_are_the_model(hospitals: MakeHospitals, tmp_path: Path) -> None:
    model = hospitals().model()
    before = state(model, tmp_path)
    model.body += 1
    changed = {name for name, tensor in state(model, tmp_path).items() if not torch.equal(tensor, before[name])}
    assert changed == set(model.split.body.names)
    model.body -= 1
    model.head += 1
    changed = {
        name for name, tensor in state(model, tmp_path).items() if not torch.allclose(tensor, before[name], atol=1e-6)
    }
    assert changed == set(model.split.head.names)


def test_mixing_takes_bodies_that_nobody_may_write(hospitals: MakeHospitals) -> None:
    models = hospitals().models()
    for model in models:
        model.train(0, never)
    bodies = {model.name: model.publish(0).body for model in models}
    first = models[0]
    head = first.head.clone()
    first.mix(first.name, 0.0, [(name, 0.5, body) for name, body in bodies.items() if name != first.name])
    expected = 0.5 * bodies[models[1].name] + 0.5 * bodies[models[2].name]
    assert np.allclose(first.body.numpy(), expected, rtol=1e-6, atol=1e-9)
    assert torch.equal(first.head, head)
    with pytest.raises(SplitError, match="the body of far is"):
        first.mix(first.name, 0.5, [("far", 0.5, np.zeros(3, np.float32))])


# Training


def test_a_round_can_pause(hospitals: MakeHospitals) -> None:
    three = hospitals(method="p2p-flop-alt")
    whole, paused = three.model(), three.model()
    partway = paused.train(0, lambda: True)
    assert isinstance(partway, Partway)
    assert paused.train(0, never, partway) == whole.train(0, never)
    assert torch.equal(paused.body, whole.body)
    assert torch.equal(paused.head, whole.head)


def test_a_new_site_trains_its_head_alone(hospitals: MakeHospitals) -> None:
    model = hospitals().model()
    body, head = model.body.clone(), model.head.clone()
    model.train_head(3, never)
    assert torch.equal(model.body, body)
    assert not torch.equal(model.head, head)
    assert isinstance(model.train(3, never), float)  # with momentum, body and head train together from here on
    assert not torch.equal(model.body, body)


def test_the_optimizer_can_begin_anew(hospitals: MakeHospitals) -> None:
    model, anew = hospitals().model(), hospitals().model()
    model.train(0, never)
    body, head = model.body.clone(), model.head.clone()
    model.reset_optimizer()
    model.train(1, never)
    anew.body.copy_(body)
    anew.head.copy_(head)
    anew.train(1, never)
    assert torch.equal(model.body, anew.body)


def test_pretrained_weights_lie_beside_the_federation_file(hospitals: MakeHospitals, tmp_path: Path) -> None:
    save_file(build_model("mlp", (1, 8, 8), 10, seed=77).state_dict(), tmp_path / "pretrained.safetensors")
    plain = hospitals().model()
    one, other = (model for model in hospitals(model__weights="pretrained.safetensors").models()[:2])
    assert one.body_hash == other.body_hash != plain.body_hash
    with pytest.raises(ModelError, match=r"absent\.safetensors"):
        hospitals(model__weights="absent.safetensors").model()


def test_what_diverged_names_the_site(hospitals: MakeHospitals) -> None:
    model = hospitals().model()
    model.body.fill_(float("nan"))
    with pytest.raises(TrainingError, match=r"site hospital-1: .* NaN"):
        model.evaluate()
    with pytest.raises(TrainingError, match="site hospital-1, round 3: the loss is nan"):
        model.train(2, never)


def test_a_saved_model_names_its_site_and_head(hospitals: MakeHospitals, tmp_path: Path) -> None:
    model = hospitals().model()
    model.save_model(tmp_path / "model.safetensors")
    with safe_open(tmp_path / "model.safetensors", framework="pt") as file:
        metadata = file.metadata()
        assert set(file.keys()) == {*model.split.body.names, *model.split.head.names}
    assert metadata == {
        "site": "hospital-1",
        "body_sha256": model.schema_hash.hex(),
        "head": '["head.weight", "head.bias"]',
    }


# Servers and mistakes


def test_a_server_averages_and_trains_nothing(hospitals: MakeHospitals) -> None:
    three = hospitals(server=True, method="flop")
    server, models = three.model("server"), three.models()
    assert server.samples == {"train": 0, "validation": 0, "test": 0}
    assert server.evaluate() == {"validation": None, "test": None}
    for model in models:
        model.train(0, never)
    bodies = [model.publish(0).body for model in models]
    server.mix("server", 0.0, [(model.name, 1 / 3, body) for model, body in zip(models, bodies, strict=True)])
    assert np.allclose(server.publish(0).body, np.mean(bodies, axis=0), rtol=1e-5, atol=1e-7)
    with pytest.raises(NodeError, match="server is a server, which trains nothing"):
        server.train(0, never)


def test_a_site_without_data_is_refused(hospitals: MakeHospitals) -> None:
    three = hospitals()
    site = three.sites["hospital-1"].model_copy(update={"data": None})
    with pytest.raises(ConfigError, match=r"site hospital-1: there is no \[data\] in site.toml"):
        SiteModel(three.federation, site)


def test_augmentation_of_a_table_is_refused(hospitals: MakeHospitals) -> None:
    with pytest.raises(ConfigError, match="augmentation is for images"):
        hospitals(data__source="breast-cancer", training__augmentation=("crop:2",)).model()


@pytest.mark.parametrize(("settings", "numbers"), [({"momentum": 0.0}, 1), ({}, 2), ({"optimizer": "adam"}, 3)])
def test_the_size_of_a_checkpoint_is_known_beforehand(
    hospitals: MakeHospitals, tmp_path: Path, settings: dict[str, Any], numbers: int
) -> None:
    model = hospitals(**{f"training__{name}": value for name, value in settings.items()}).model()
    model.train(0, never)
    Checkpoints(tmp_path).save(model, Progress(1, "training", "", ""))
    assert model.checkpoint_bytes == pytest.approx((tmp_path / "checkpoint-1.safetensors").stat().st_size, rel=0.1)
    counters = 6 if numbers == 3 else 0  # Adam counts the steps of each of the six tensors
    assert model.checkpoint_bytes == 4 * (numbers * (model.body.numel() + model.head.numel()) + counters)


def test_the_data_in_a_few_words(hospitals: MakeHospitals) -> None:
    three = hospitals(server=True)
    model = three.model()
    assert model.describe_data().startswith(f"{model.samples['train']} training, ")
    assert three.model("server").describe_data() == "a server has no data"
