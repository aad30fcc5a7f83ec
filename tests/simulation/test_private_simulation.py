"""Differential privacy in simulations: budgets, silence, accounting, what is refused."""

import bisect
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from opacus.accountants import RDPAccountant
from scipy.sparse import csr_array

from flop_p2p.errors import ConfigError
from flop_p2p.gossip.mixing import weighted_sum
from flop_p2p.gossip.plan import GossipPlan
from flop_p2p.simulation import Simulation, run_simulation
from flop_p2p.simulation.mixing import without_senders
from flop_p2p.simulation.run_directory import RunDirectory
from flop_p2p.topology import build_schedule

NOISE: dict[str, Any] = {"privacy__noise_multiplier": 1.5, "training__batch_size": 16, "topology__name": "ring"}
UNEVEN: dict[str, Any] = {"data__partition": "quantity:1.0", "data__min_site_images": 20, "data__limit_images": 400}


def affordable(samples: int, batch: int, budget: float, noise: float, rounds: int) -> int:
    """Rounds within the budget, by opacus' accountant alone."""
    steps, accountant = -(-samples // batch), RDPAccountant()

    def too_far(done: int) -> bool:
        accountant.history = [(noise, min(1.0, batch / samples), steps * done)]
        return accountant.get_epsilon(delta=1e-5) > budget

    return bisect.bisect_left(range(1, rounds + 1), True, key=too_far)


def complete(run: Simulation) -> list[dict[str, Any]]:
    lines = []
    while run.progress.round < run.progress.last_round:
        assert run.run_round(lambda: False)
        lines += run.round_lines()
    return lines


@pytest.mark.parametrize("method", ["p2p-flop", "flop"])
def test_sites_stop_at_the_round_that_the_accountant_says(simulation: Any, method: str) -> None:
    run = simulation(method=method, training__rounds=6, privacy__epsilon=6.0, **NOISE, **UNEVEN)
    expected = {site.name: affordable(len(site.train), 16, 6.0, 1.5, 6) for site in run.sites}
    assert len(set(expected.values())) > 1
    lines = complete(run)
    for name, rounds in expected.items():
        trained = [line["round"] for line in lines if line["site"] == name and line["train_loss"] is not None]
        assert trained == list(range(1, rounds + 1))
        assert run.progress.stopped.get(name) == (rounds + 1 if rounds < 6 else None)
        spent = [line["epsilon"] for line in lines if line["site"] == name]
        assert spent == sorted(spent)
        assert max(spent) <= 6.0


def test_a_silent_site_receives_and_the_others_keep_its_weight(simulation: Any) -> None:
    run = simulation(training__rounds=6, privacy__epsilon=6.0, evaluate_every=0, **NOISE, **UNEVEN)
    names = [site.name for site in run.sites]
    count = len(names)
    matrix = build_schedule(run.settings.topology, names, [1] * count, 0).mixing(0).toarray()
    seen, mix = [], run.exchange.mix

    def watched(bodies: torch.Tensor, round_index: int, silent: tuple[int, ...]) -> None:
        before = bodies.clone()
        mix(bodies, round_index, silent)
        hushed = matrix.copy()
        for site in silent:
            for row in set(range(count)) - {site}:
                hushed[row, row] += hushed[row, site]
                hushed[row, site] = 0
        torch.testing.assert_close(bodies, torch.from_numpy(hushed).float() @ before, rtol=1e-5, atol=1e-6)
        seen.append(silent)

    run.exchange.mix = watched
    traffic = []
    for _ in range(6):
        before = run.bytes_total()
        run.run_round(lambda: False)
        run.round_lines()
        traffic.append(run.bytes_total() - before)
    size = 4 * run.population.split.body.parameters
    assert traffic == [size * 2 * (count - len(silent)) for silent in seen]
    assert 0 < len(seen[-1]) < count
    assert seen[0] == ()


def test_nobody_sends_any_more(simulation: Any) -> None:
    run = simulation(method="flop", training__rounds=9, privacy__epsilon=4.5, data__sites=3, evaluate_every=0, **NOISE)
    rounds = affordable(len(run.sites[0].train), 16, 4.5, 1.5, 9)
    assert 0 < rounds < 7
    for _ in range(rounds + 1):
        run.run_round(lambda: False)
        run.round_lines()
    bodies = run.population.bodies.clone()
    run.run_round(lambda: False)
    assert torch.equal(run.population.bodies, bodies)


def test_a_resumed_run_has_spent_what_it_had(experiment: Any, simulation: Any, tmp_path: Path) -> None:
    run = simulation(privacy__epsilon=6.0, training__rounds=5, **NOISE, **UNEVEN)
    for _ in range(3):
        run.run_round(lambda: False)
        run.round_lines()
    RunDirectory(tmp_path / "run", run.settings, resume=False)
    run.save(tmp_path / "run" / "checkpoint.json")
    again = simulation(privacy__epsilon=6.0, training__rounds=5, **NOISE, **UNEVEN)
    again.resume(tmp_path / "run" / "checkpoint.json")
    for site in run.sites:
        assert again.spending.epsilon(site.name) == run.spending.epsilon(site.name)
    assert again.spending.silent() == run.spending.silent()
    assert again.progress.stopped == run.progress.stopped
    assert [line["epsilon"] for line in complete(again)] == [line["epsilon"] for line in complete(run)]


def test_workers_change_nothing_and_the_summary_tells(experiment: Any, tmp_path: Path) -> None:
    settings = experiment(method="p2p-flop-alt", training__rounds=2, late_sites=1, **NOISE)
    one = run_simulation(settings, tmp_path / "one", workers=1)
    two = run_simulation(settings, tmp_path / "two", workers=2)
    assert one["metrics"] == two["metrics"]
    told = one["privacy"]
    assert told == two["privacy"]
    assert {
        key: told[key] for key in ("noise_multiplier", "clipping_norm", "delta", "accountant", "unit", "budget")
    } == {
        "noise_multiplier": 1.5,
        "clipping_norm": 1.0,
        "delta": 1e-5,
        "accountant": "rdp",
        "unit": "record",
        "budget": None,
    }
    assert len(told["sites"]) == 3
    for site in told["sites"].values():
        accountant = RDPAccountant()
        accountant.history = [(1.5, site["sampling_rate"], site["steps"])]
        assert site["epsilon"] == accountant.get_epsilon(delta=1e-5)
        assert site["stopped"] is None


@pytest.mark.parametrize("method", ["local", "pooled", "fedavg", "fedavg-ft", "dfedavg"])
def test_every_method_that_trains_is_accounted(simulation: Any, method: str) -> None:
    run = simulation(method=method, training__rounds=2, training__participation=0.5, evaluate_every=0, **NOISE)
    lines = complete(run)
    assert all((line["epsilon"] > 0) == (line["train_loss"] is not None) for line in lines if line["round"] == 1)
    names = {"pooled"} if method == "pooled" else {site.name for site in run.sites}
    assert run.spending.summary(run.progress)["sites"].keys() == names


def test_the_baseline_that_trains_nothing_spends_nothing(simulation: Any) -> None:
    run = simulation(method="majority", training__rounds=1, **NOISE)
    assert [line["epsilon"] for line in complete(run)] == [None] * 4


def test_patients_are_the_unit_where_the_data_know_them(simulation: Any, tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [
        f"{a},{b},{'yes' if a + b > 1 else 'no'},p{number // 5}" for number, (a, b) in enumerate(draw.random((200, 2)))
    ]
    (tmp_path / "ward.csv").write_text("\n".join(["a,b,label,patient", *rows]))
    table = {"data__source": "csv", "data__path": tmp_path / "ward.csv", "data__patient_column": "patient"}
    run = simulation(privacy__unit="patient", data__sites=2, data__partition="iid", evaluate_every=0, **table, **NOISE)
    complete(run)
    for site, told in run.spending.summary(run.progress)["sites"].items():
        (own,) = (each for each in run.sites if each.name == site)
        patients = len(set(run.samples.patients[own.train].tolist()))
        assert patients < len(own.train) / 4
        assert told["sampling_rate"] == min(1.0, 16 / patients)
        assert told["steps"] == 3 * -(-patients // 16)


def test_what_is_refused(simulation: Any) -> None:
    with pytest.raises(ConfigError, match=r"privacy\.epsilon = 0\.1 is spent before the first round is over"):
        simulation(privacy__epsilon=0.1, **NOISE)
    with pytest.raises(ConfigError, match="--sites-at-once 2: with differential privacy"):
        simulation(sites_at_once=2, **NOISE)
    with pytest.raises(ConfigError, match="the data tell no patients"):
        simulation(privacy__unit="patient", **NOISE)


def test_a_masked_sum_of_one_is_never_formed(simulation: Any) -> None:
    settings = {**NOISE, "topology__name": "full", "data__sites": 3, "privacy__masking": "pairwise"}
    run = simulation(evaluate_every=0, **settings)
    bodies = torch.arange(9.0).view(3, 3)
    mixed = bodies.clone()
    run.exchange.mix(mixed, 0, (1,))
    torch.testing.assert_close(mixed[0], bodies[0])  # only 2 would be left of its senders
    torch.testing.assert_close(mixed[2], bodies[2])
    torch.testing.assert_close(mixed[1], bodies.mean(dim=0))
    assert run.exchange.messages(0, (1,)).tolist() == [1, 2, 1]
    run.exchange.mix(mixed, 1, ())
    torch.testing.assert_close(mixed[0], mixed[2])


@pytest.mark.parametrize("silent", [(1,), (0, 4), (0, 1, 2, 3, 4)])
@pytest.mark.parametrize("topology", ["ring", "full", "one-peer-exponential"])
def test_the_matrix_is_what_nodes_mix_by(topology: str, silent: tuple[int, ...], experiment: Any) -> None:
    names = [f"{number}" for number in range(5)]
    schedule = build_schedule(experiment(topology__name=topology).topology, names, [1] * 5, 0)
    for round_index in range(3):
        matrix = without_senders(csr_array(schedule.mixing(round_index)), silent)
        assert matrix.has_sorted_indices
        np.testing.assert_allclose(matrix.sum(axis=1), 1)
        for row, name in enumerate(names):
            plan = GossipPlan(schedule, name)
            others = sorted(plan.weights(round_index).keys() - {name})
            held = {other: None if int(other) in silent else round_index for other in others}
            mixed = weighted_sum(plan, name, round_index, held)
            expected = {part.name: part.weight for part in mixed.parts} | {name: mixed.own_weight}
            found = dict(zip(matrix.indices[matrix.indptr[row] :], matrix.data[matrix.indptr[row] :], strict=True))
            own = slice(matrix.indptr[row], matrix.indptr[row + 1])
            found = {names[col]: weight for col, weight in zip(matrix.indices[own], matrix.data[own], strict=True)}
            assert {key: value for key, value in found.items() if value} == {
                key: value for key, value in expected.items() if value
            }
