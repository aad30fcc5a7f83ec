"""The synchronous engine: heads stay home, a full mesh is centralized FLOP, methods do what they say."""

from typing import Any

import numpy as np
import pytest
import torch

from flop_p2p.errors import ConfigError, SplitError
from flop_p2p.simulation import METHODS, Simulation

Never = lambda: False  # noqa: E731


def train(simulation: Simulation, rounds: int) -> None:
    """Run rounds without evaluating them."""
    for _ in range(rounds):
        assert simulation.run_round(Never)
        simulation.progress.trained = {}


@pytest.mark.parametrize("weighting", ["uniform", "samples"])
def test_full_mesh_gives_the_bodies_of_centralized_flop(simulation: Any, weighting: str) -> None:
    common = {"data__partition": "quantity:2", "topology__weighting": weighting, "data__limit_images": 400}
    gossip = simulation(method="p2p-flop", topology__name="full", **common)
    central = simulation(method="flop", **common)
    sizes = {len(site.train) for site in gossip.sites}
    assert len(sizes) > 1, "the sites must differ in size for this to mean anything"
    train(gossip, 3)
    train(central, 3)
    difference = (gossip.population.bodies - central.population.bodies).norm(dim=1)
    assert float((difference / central.population.bodies.norm(dim=1)).max()) < 1e-5


def test_the_two_weightings_differ(simulation: Any) -> None:
    common = {"data__partition": "quantity:2", "data__limit_images": 400, "method": "flop"}
    uniform, weighted = simulation(**common), simulation(topology__weighting="samples", **common)
    train(uniform, 1)
    train(weighted, 1)
    assert not torch.allclose(uniform.population.bodies, weighted.population.bodies, rtol=1e-4)


@pytest.mark.parametrize("model", ["mlp", "small-cnn", "resnet18"])
@pytest.mark.parametrize("method", ["p2p-flop", "flop"])
def test_heads_are_bit_identical_through_mixing(simulation: Any, model: str, method: str) -> None:
    """What a site's training left in its head is what its next training begins with."""
    run = simulation(method=method, model__name=model, data__limit_images=80, data__sites=3, data__split="0.7,0,0.3")
    seen: list[list[bytes]] = []

    def heads() -> list[bytes]:
        names = run.population.split.head.names
        states = (run.work.model(row).state_dict() for row in range(3))  # one after the other: there is one model
        return [b"".join(state[name].numpy().tobytes() for name in names) for state in states]

    mix, step = run.exchange.mix, run.work.train

    def watched_mix(bodies: torch.Tensor, round_index: int, silent: Any) -> None:
        before = heads()
        untouched = bodies.clone()
        mix(bodies, round_index, silent)
        assert heads() == before
        assert not torch.equal(bodies, untouched), "mixing must have changed the bodies"
        seen.append(before)

    def watched_train(row: int, index: int, phase: Any) -> tuple[float, float]:
        if seen:
            assert heads()[row] == seen[-1][row]
        return step(row, index, phase)

    run.work.train = watched_train
    run.exchange.mix = watched_mix
    train(run, 2)
    assert len(seen) == 2
    assert seen[0] != seen[1], "the heads must have trained"
    assert len(set(seen[1])) == 3, "every site must have a head of its own"


def test_the_mixed_matrix_holds_the_body_and_nothing_else(simulation: Any) -> None:
    run = simulation(model__name="small-cnn")
    population = run.population
    assert population.bodies.shape == (4, population.split.body.parameters)
    assert not set(population.split.body.names) & set(population.split.head.names)
    for site, row in enumerate(population.bodies):
        state = run.work.model(site).state_dict()
        addresses = {state[name].untyped_storage().data_ptr() for name in population.split.body.names}
        assert addresses == {row.untyped_storage().data_ptr()}
        heads = {state[name].untyped_storage().data_ptr() for name in population.split.head.names}
        assert not heads & addresses


def test_a_renamed_private_glob_is_an_error(simulation: Any) -> None:
    simulation(model__private=["head.*"])
    with pytest.raises(SplitError, match=r"classifier\.\*.*matches nothing.*head\.weight"):
        simulation(model__private=["classifier.*"])


def test_all_methods_start_from_the_same_weights(simulation: Any) -> None:
    states = [simulation(method=name).work.model(0).state_dict() for name in METHODS]
    for state in states[1:]:
        assert all(torch.equal(state[name], value) for name, value in states[0].items())


@pytest.mark.parametrize("overrides", [{"training__local_steps": 5}, {"training__local_epochs": 2}])
def test_methods_take_the_same_number_of_gradient_steps(simulation: Any, overrides: dict[str, int]) -> None:
    counts = {}
    for name in METHODS:
        run = simulation(method=name, data__partition="quantity:5", **overrides)
        steps = [0]
        optimizer = run.work.learners[0].trainee.optimizer  # all have the same

        def counted(lr: float, original: Any = optimizer.step, steps: list[int] = steps) -> None:
            steps[0] += 1
            original(lr)

        optimizer.step = counted
        train(run, 3)
        counts[name] = steps[0]
    assert counts.pop("majority") == 0
    assert len(set(counts.values())) == 1, counts
    if "training__local_steps" in overrides:
        assert counts["pooled"] == 4 * 5 * 3


def test_fedavg_leaves_all_sites_with_one_model(simulation: Any) -> None:
    run = simulation(method="fedavg")
    train(run, 2)
    assert len({row.numpy().tobytes() for row in run.population.bodies}) == 1
    assert run.population.split.head.parameters == 0


def test_fedavg_ft_trains_only_the_head_in_its_last_round(simulation: Any) -> None:
    run = simulation(method="fedavg-ft")
    train(run, 2)
    state = run.work.model(0).state_dict()
    before = {name: value.clone() for name, value in state.items()}
    sent = list(run.progress.traffic)
    train(run, 1)
    changed = {name for name, value in state.items() if not torch.equal(value, before[name])}
    assert changed == {"head.weight", "head.bias"}
    assert run.progress.traffic == sent
    with pytest.raises(ConfigError, match="rounds 2"):
        simulation(method="fedavg-ft", training__rounds=1)


def test_majority_predicts_the_most_frequent_class(simulation: Any) -> None:
    run = simulation(method="majority", data__partition="dirichlet:0.5", data__min_site_images=10)
    train(run, 3)
    for position, site in enumerate(run.sites):
        labels = run.samples.labels.numpy()
        most = np.bincount(labels[site.train]).argmax()
        metrics = run.work.evaluate(position, 3)["test"]
        assert metrics["accuracy"] == pytest.approx(float((labels[site.test] == most).mean()))


def test_bytes_of_a_ring(simulation: Any) -> None:
    run = simulation()
    train(run, 3)
    body = 4 * run.population.split.body.parameters
    assert run.bytes_total() == 3 * 4 * 2 * body
    assert run.bytes_busiest() == 3 * 4 * body


def test_bytes_of_a_ring_with_changes_alone(simulation: Any) -> None:
    run = simulation(gossip__compression="top-k")
    train(run, 3)
    parameters = run.population.split.body.parameters
    assert run.bytes_total() == 4 * 2 * (4 * parameters + 2 * 6 * round(parameters / 100))
    assert run.bytes_busiest() == run.bytes_total() // 2


def test_rounds_can_be_evaluated_seldom(simulation: Any) -> None:
    run = simulation(evaluate_every=2)
    tested = []
    for _ in range(3):
        run.run_round(Never)
        tested.append([line["test"] is not None for line in run.round_lines()])
    assert tested == [[False] * 4, [True] * 4, [True] * 4]


def test_an_unknown_device_is_refused(simulation: Any) -> None:
    with pytest.raises(ConfigError, match="cpu or cuda"):
        simulation(device="tpu")


def test_batch_norm_can_stay_at_the_site(simulation: Any) -> None:
    run = simulation(model__name="resnet18", model__batch_norm="private", data__limit_images=60, data__sites=2)
    train(run, 1)
    first, second = ({k: v.clone() for k, v in run.work.model(row).state_dict().items()} for row in range(2))
    assert not torch.equal(first["bn1.running_mean"], second["bn1.running_mean"])
    assert int(first["bn1.num_batches_tracked"]) > 0
    assert torch.equal(first["conv1.weight"], second["conv1.weight"])


def test_fedavg_with_private_batch_norm_is_fedbn(simulation: Any) -> None:
    overrides = {"model__name": "resnet18", "data__limit_images": 60, "data__sites": 2}
    run = simulation(method="fedavg", model__batch_norm="private", **overrides)
    train(run, 1)
    first, second = ({k: v.clone() for k, v in run.work.model(row).state_dict().items()} for row in range(2))
    assert not torch.equal(first["bn1.weight"], second["bn1.weight"])
    assert torch.equal(first["fc.weight"], second["fc.weight"])
