"""Daemons with differential privacy: they stop sending at the round that the accountant says, and go on receiving."""

import asyncio
import bisect
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from federation import run_nodes
from opacus.accountants import RDPAccountant

from flop_p2p.cli.status import status_page
from flop_p2p.config import load_site
from flop_p2p.gossip.actions import Mix, Part
from flop_p2p.local.results import collect
from flop_p2p.node.daemon import Node
from flop_p2p.simulation import Simulation

ROUNDS = 6
PRIVATE = {
    "data.partition": "quantity:1.0",
    "data.min_site_images": 60,
    "model.name": "mlp",
    "topology.name": "ring",
    "training.rounds": ROUNDS,
    "privacy.noise_multiplier": 1.5,
    "privacy.epsilon": 4.0,
    "gossip.deadline": 600.0,  # whoever waits for a silent neighbour waits longer than the test
}


def affordable(samples: int, budget: float) -> int:
    """Rounds within the budget, by opacus' accountant alone."""
    steps, accountant = -(-samples // 16), RDPAccountant()

    def too_far(done: int) -> bool:
        accountant.history = [(1.5, 16 / samples, steps * done)]
        return accountant.get_epsilon(delta=1e-5) > budget

    return bisect.bisect_left(range(1, ROUNDS + 1), True, key=too_far)


def sent(state: Path) -> set[int]:
    """Rounds, counted from 1, of the bodies that left."""
    lines = [json.loads(text) for text in (state / "egress.jsonl").read_text().splitlines()]
    return {line["round"] + 1 for line in lines if line["kind"] == "body"}


def expected_rounds(federation: Any, own: dict[str, float]) -> dict[str, int]:
    return {site.name: affordable(len(site.train), min(4.0, own.get(site.name, 4.0))) for site in federation.data.sites}


def check(federation: Any, expected: dict[str, int], names: Collection[str]) -> None:
    for name in names:
        state, rounds = federation.sites[name].state, expected[name]
        summary, lines = federation.summary(name), federation.lines(name)
        assert summary["completed"] == ROUNDS
        assert sent(state) == set(range(1, rounds + 1))
        assert [line["round"] for line in lines if line["train_loss"] is not None] == list(range(1, rounds + 1))
        assert all(line["test"] is not None for line in lines)
        told = summary["privacy"]
        assert told["stopped"] == (rounds + 1 if rounds < ROUNDS else None)
        accountant = RDPAccountant()
        accountant.history = [(1.5, told["sampling_rate"], told["steps"])]
        assert told["epsilon"] == lines[-1]["epsilon"] == accountant.get_epsilon(delta=1e-5)
        assert told["epsilon"] <= told["budget"]
        for neighbour in summary["neighbours"]:
            missed = summary["absences"].get(neighbour, [])
            assert missed == list(range(expected[neighbour] + 1, ROUNDS + 1))


def test_daemons_stop_sending_as_the_accountant_says(daemons: Callable[..., Any], caplog: Any) -> None:
    federation = daemons(PRIVATE)
    names = list(federation.sites)
    federation.change(names[0], privacy={"epsilon": 3.0})
    expected = expected_rounds(federation, {names[0]: 3.0})
    assert 0 < expected[names[0]] < ROUNDS
    assert len(set(expected.values())) > 1
    caplog.set_level("INFO")
    asyncio.run(asyncio.wait_for(run_nodes(federation.sites.values()), 120))
    check(federation, expected, names)
    assert f"sent nothing from round {expected[names[0]] + 1} on" in caplog.text
    assert f"{names[0]} sends no bodies from round {expected[names[0]] + 1} on" in caplog.text
    summary = collect(federation.settings, federation.data, list(federation.sites.values()), federation.folder, 0.0)
    told = summary["privacy"]
    assert told["noise_multiplier"] == 1.5
    assert {name: site["stopped"] for name, site in told["sites"].items()} == {
        name: rounds + 1 if rounds < ROUNDS else None for name, rounds in expected.items()
    }
    simulation = Simulation(federation.settings, federation.data, federation.data.sites)
    while simulation.progress.round < ROUNDS:  # without the site's own budget
        simulation.run_round(lambda: False)
        simulation.round_lines()
    for name in names[1:]:
        assert simulation.progress.stopped.get(name) == told["sites"][name]["stopped"]


def test_the_server_of_centralized_flop_goes_on_without_silent_sites(daemons: Callable[..., Any]) -> None:
    federation = daemons(
        {**PRIVATE, "method": "flop", "data.partition": "iid", "data.sites": 2, "data.limit_images": 200}
    )
    names = [name for name, site in federation.sites.items() if site.role == "site"]
    expected = expected_rounds(federation, {})
    assert all(0 < rounds < ROUNDS - 1 for rounds in expected.values())  # all are silent in the end
    asyncio.run(asyncio.wait_for(run_nodes(federation.sites.values()), 120))
    for name in names:
        assert sent(federation.sites[name].state) == set(range(1, expected[name] + 1))
        assert federation.summary(name)["completed"] == ROUNDS
    assert sent(federation.sites["server"].state) == set(range(1, ROUNDS + 1))
    assert federation.summary("server")["privacy"] is None


def test_a_restarted_node_has_spent_what_it_had(daemons: Callable[..., Any]) -> None:
    federation = daemons({**PRIVATE, "data.partition": "iid", "privacy.epsilon": 7.0})
    names = list(federation.sites)

    async def interrupted() -> None:
        nodes = [Node(load_site(site.settings)) for site in federation.sites.values()]
        running = asyncio.gather(*(node.run() for node in nodes))
        while nodes[0].snapshot()["completed"] < 2:
            await asyncio.sleep(0.005)
        for node in nodes:
            node.driver.stop()
        await running
        for node in nodes:
            node.lock.release()

    asyncio.run(interrupted())
    spent = {name: federation.summary(name)["privacy"] for name in names}
    nodes = [Node(load_site(site.settings)) for site in federation.sites.values()]
    for node in nodes:
        assert node.snapshot()["privacy"]["steps"] == spent[node.site.name]["steps"] > 0
        assert "epsilon" in {key for key, _ in _rows(node.snapshot())}
        node.lock.release()
    asyncio.run(asyncio.wait_for(run_nodes(federation.sites.values()), 120))
    for site in federation.data.sites:
        privacy = federation.summary(site.name)["privacy"]
        steps = -(-len(site.train) // 16)
        rounds = len(sent(federation.sites[site.name].state))
        assert privacy["steps"] >= steps * rounds  # never fewer than were released
        assert privacy["epsilon"] <= 7.0


def test_an_adopted_site_without_budget_for_its_head_can_be_started_again(
    daemons: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = daemons({**PRIVATE, "data.partition": "iid", "data.sites": 2})
    name, other = federation.sites
    federation.change(name, privacy={"epsilon": 0.01})
    site = load_site(federation.sites[name].settings)
    node = Node(site, adopt=3)
    monkeypatch.setattr(node.driver._courier, "mix", lambda action: action)  # the body itself does not matter
    node.driver._mix(Mix(-1, 0.0, (Part(other, 4, 1.0),), catches_up=True))
    node.lock.release()
    again = Node(site)
    assert again.snapshot()["privacy"]["stopped"] == 6  # counted from 1: that after the body it took over
    again.lock.release()


def _rows(snapshot: dict[str, Any]) -> list[tuple[str, Any]]:
    table = status_page(snapshot).renderables[1]
    return list(zip(*(column._cells for column in table.columns), strict=True))  # type: ignore[attr-defined]


@pytest.mark.parametrize("site", ["hospital-1"])
def test_nodes_of_one_seed_have_noise_of_their_own(site: str, daemons: Callable[..., Any]) -> None:
    federation = daemons({**PRIVATE, "data.partition": "iid", "training.rounds": 1, "data.sites": 2})
    bodies = []
    for _ in range(2):
        node = Node(load_site(federation.sites[site].settings))
        start = node.model.body.clone()
        node.model.train(0, lambda: False)
        bodies.append(node.model.body - start)
        node.lock.release()
        node.egress.close()
    spread = float((bodies[0] - bodies[1]).std())
    assert spread > 0.1 * float(bodies[0].std())  # noise, not rounding
    assert not np.array_equal(bodies[0].numpy(), bodies[1].numpy())
