"""Nodes that compress reach the simulator's bodies to the bit, also when a connection or a message is lost."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from federation import run_nodes, run_until
from safetensors.torch import load_file

from flop_p2p.node.egress_verify import verify
from flop_p2p.simulation import run_simulation
from flop_p2p.transport.base import OutgoingBody
from flop_p2p.transport.link import Link
from flop_p2p.transport.zeromq import ZmqTransport
from flop_p2p.wire.encodings import agreed_bytes

SETTINGS = {"model.name": "mlp", "training.rounds": 5, "training.local_steps": 3}
LOSING, MISSING = "hospital-1", "hospital-2"


def sizes(federation: Any, name: str, receiver: str) -> list[int]:
    """Bytes of the bodies that left for ``receiver``, in their order."""
    lines = [json.loads(text) for text in (federation.sites[name].state / "egress.jsonl").read_text().splitlines()]
    return [line["bytes"] for line in lines if line["kind"] == "body" and line["receiver"] == receiver]


def same_models(federation: Any, folder: Any) -> list[bool]:
    """Whether each site's model is the simulator's to the bit."""
    run_simulation(federation.settings, folder)
    same = []
    for name, site in federation.sites.items():
        expected, found = (
            load_file(folder / "models" / f"{name}.safetensors"),
            load_file(site.state / "model.safetensors"),
        )
        same.append(all(torch.equal(found[key], tensor) for key, tensor in expected.items()))
    return same


def allowed(federation: Any) -> tuple[int, ...]:
    """Bytes that a body may take: a whole one, or the first and the later ones."""
    site = federation.sites[LOSING]
    parameters = sum(
        tensor.numel() for name, tensor in load_file(site.state / "model.safetensors").items() if "head" not in name
    )
    return agreed_bytes(federation.settings.gossip, parameters)


@pytest.mark.parametrize("compression", ["bfloat16", "int8", "top-k"])
def test_nodes_reach_the_bodies_of_the_simulator(daemons: Callable[..., Any], tmp_path: Any, compression: str) -> None:
    federation = daemons({**SETTINGS, "gossip.compression": compression})
    asyncio.run(run_nodes(federation.sites.values()))
    assert all(same_models(federation, tmp_path / "simulated"))
    first, later = allowed(federation)[0], allowed(federation)[-1]
    for name, site in federation.sites.items():
        traffic = verify(site.state)
        for receiver in federation.summary(name)["neighbours"]:
            assert traffic[receiver].bodies == 5
            assert sizes(federation, name, receiver) == [first] + 4 * [later]


class Cutting(ZmqTransport):
    """Loses a connection when the bodies of a round are about to leave over it, and those before have come."""

    cut = False  # for both of them

    def send(self, name: str, outgoing: OutgoingBody) -> None:
        if Cutting.cut or outgoing.round != 2 or {self._hub.name, name} != {LOSING, MISSING}:
            super().send(name, outgoing)
        elif self._hub.name == LOSING:
            self._hub.spawn(self._lose(self._links[name]))

    async def _lose(self, link: Link) -> None:
        while not link.idle:
            await asyncio.sleep(0.005)
        Cutting.cut = True
        link.lose("cut by the test")


def test_a_lost_connection_changes_no_bit(daemons: Callable[..., Any], tmp_path: Any) -> None:
    federation = daemons({**SETTINGS, "gossip.compression": "top-k"})
    Cutting.cut = False
    asyncio.run(run_nodes(federation.sites.values(), Cutting))
    assert all(same_models(federation, tmp_path / "simulated"))
    whole, changes = allowed(federation)
    assert sizes(federation, LOSING, MISSING) == [whole, changes, whole, changes, changes]
    assert sizes(federation, LOSING, "hospital-4") == [whole] + 4 * [changes]


class Altering(ZmqTransport):
    """What it tells one neighbour in one round is dropped there, and it does not know."""

    def send(self, name: str, outgoing: OutgoingBody) -> None:
        if (self._hub.name, name, outgoing.round) == (LOSING, MISSING, 1) and outgoing.changes is not None:
            outgoing = replace(outgoing, changes=replace(outgoing.changes, sha256=bytes(32)))
        super().send(name, outgoing)


def test_after_a_lost_message_the_edge_begins_anew(daemons: Callable[..., Any]) -> None:
    federation = daemons({**SETTINGS, "gossip.compression": "top-k", "gossip.deadline": 2.0})
    asyncio.run(run_nodes(federation.sites.values(), Altering))
    whole, changes = allowed(federation)
    told = sizes(federation, LOSING, MISSING)
    assert told[:3] == [whole, changes, changes]  # lost, and refused for what it changes
    assert told[3] == whole
    assert told[-1] == changes
    assert federation.summary(MISSING)["absences"] == {LOSING: [2]}
    assert all(federation.summary(name)["completed"] == 5 for name in federation.sites)


def test_after_a_restart_bodies_are_whole_once_and_the_run_goes_on(daemons: Callable[..., Any]) -> None:
    settings = {**SETTINGS, "data.sites": 2, "topology.name": "full", "training.rounds": 30, "gossip.isolated": "wait"}
    federation = daemons({**settings, "gossip.compression": "top-k"})
    assert all(3 <= summary["completed"] < 30 for summary in asyncio.run(run_until(federation.sites.values(), 3)))
    assert all(
        summary["completed"] == 30 and summary["catch_ups"] == 0
        for summary in asyncio.run(run_until(federation.sites.values()))
    )
    whole, changes = allowed(federation)
    for name, other in ((LOSING, MISSING), (MISSING, LOSING)):
        told = sizes(federation, name, other)
        assert told.count(whole) == 2
        assert told.count(changes) >= 28
