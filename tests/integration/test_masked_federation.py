"""Real nodes that mask: the same bodies as without, a killed sender costs one round, and nothing leaves unmasked."""

import asyncio
import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from federation import Daemons, run_nodes
from safetensors.torch import load_file

from flop_p2p.config import load_site
from flop_p2p.node.daemon import Node
from flop_p2p.node.egress_verify import verify
from flop_p2p.node.masked_courier import MaskedCourier
from flop_p2p.simulation import run_simulation
from flop_p2p.transport.base import OutgoingBody
from flop_p2p.transport.zeromq import ZmqTransport
from flop_p2p.wire.messages import Decline, Participants
from flop_p2p.wire.participants import pack

SETTINGS = {"model.name": "mlp", "training.rounds": 3, "training.local_steps": 3}
MASKED = {**SETTINGS, "privacy.masking": "pairwise"}
MESH = {**MASKED, "data.sites": 5, "topology.name": "full"}


def bodies(federation: Daemons) -> dict[str, np.ndarray]:
    """All shared and private numbers of each site's final model."""
    models = {name: load_file(site.state / "model.safetensors") for name, site in federation.sites.items()}
    return {name: torch.cat([model[key].flatten() for key in sorted(model)]).numpy() for name, model in models.items()}


@pytest.mark.parametrize(("topology", "sites"), [("ring", 4), ("full", 5), ("random-regular:4", 8)])
def test_masked_daemons_end_with_the_bodies_of_unmasked_ones(
    daemons: Callable[..., Daemons], tmp_path: Any, topology: str, sites: int
) -> None:
    where = {"data.sites": sites, "topology.name": topology}
    masked, plain = daemons({**MASKED, **where}), daemons({**SETTINGS, **where})
    masked.start()
    assert set(masked.wait(seconds=180).values()) == {0}, [masked.log(name) for name in masked.sites]
    asyncio.run(run_nodes(plain.sites.values()))
    with_masks, without = bodies(masked), bodies(plain)
    for name in masked.sites:
        difference = np.linalg.norm(with_masks[name] - without[name]) / np.linalg.norm(without[name])
        assert 0 < difference < 1e-5
        summary = masked.summary(name)
        assert summary["masked_skips"] == []
        assert summary["whole"]
        traffic = verify(masked.sites[name].state)
        assert all(traffic[receiver].bodies == 3 for receiver in summary["neighbours"])
    run_simulation(masked.settings, tmp_path / "simulated")
    for name, site in masked.sites.items():
        simulated = load_file(tmp_path / "simulated" / "models" / f"{name}.safetensors")
        model = load_file(site.state / "model.safetensors")
        assert all(torch.equal(model[key], tensor) for key, tensor in simulated.items())


class Recording(ZmqTransport):
    """Keeps all that a node is about to send."""

    sent: ClassVar[list[tuple[str, str, OutgoingBody]]] = []

    def send(self, name: str, outgoing: OutgoingBody) -> None:
        Recording.sent.append((self._hub.name, name, outgoing))
        super().send(name, outgoing)


def test_what_leaves_is_masked_for_its_receiver_alone(daemons: Callable[..., Daemons]) -> None:
    federation = daemons({**MASKED, "model.name": "small-cnn", "training.rounds": 1})
    Recording.sent = []
    asyncio.run(run_nodes(federation.sites.values(), Recording))
    assert {outgoing.encoding for _, _, outgoing in Recording.sent} == {"masked"}
    assert len(Recording.sent) == 8
    for _, _, outgoing in Recording.sent:
        high = np.asarray(outgoing.body).view(np.uint8)[3::4]  # all alike in numbers this small, were they not masked
        assert len(set(high.tolist())) > 200


def test_a_sender_killed_after_it_declared_itself_costs_one_round(daemons: Callable[..., Daemons]) -> None:
    federation = daemons({**MESH, "training.rounds": 5, "gossip.deadline": 4.0})
    others = [name for name in federation.sites if name != "hospital-1"]
    federation.start(*others)
    dying = federation.sites["hospital-1"]
    federation.processes["hospital-1"] = start_dying(dying.settings, dying.log)
    assert set(federation.wait(*others, seconds=120).values()) == {0}
    assert federation.processes["hospital-1"].wait(5) == -signal.SIGKILL
    for name in others:
        summary = federation.summary(name)
        assert summary["completed"] == 5
        assert summary["masked_skips"] == [2], federation.log(name)
        assert summary["absences"]["hospital-1"] == [2, 3, 4, 5]
        assert all(summary["absences"][other] == [2] for other in others if other != name)
        left = [json.loads(line) for line in (federation.sites[name].state / "egress.jsonl").read_text().splitlines()]
        sent = [(line["receiver"], line["round"]) for line in left if line["kind"] == "body"]
        assert all(sent.count((other, 3)) == 1 for other in others if other != name)
        assert not [place for place in sent if place[0] == "hospital-1" and place[1] > 1]


def start_dying(settings: Path, log: Path) -> subprocess.Popen[bytes]:
    """A daemon that kills itself when it is first asked for its masked body of round 2."""
    program = (
        "import os, signal\n"
        "from flop_p2p.node import masked_courier\n"
        "answer = masked_courier.MaskedCourier._spawn_answer\n"
        "def die(self, receiver, message):\n"
        "    if message.round == 1:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    answer(self, receiver, message)\n"
        "masked_courier.MaskedCourier._spawn_answer = die\n"
        "import runpy, sys\n"
        f"sys.argv = ['flop-p2p', 'node', {str(settings)!r}, '--log-format', 'json']\n"
        "runpy.run_module('flop_p2p', run_name='__main__')\n"
    )
    with log.open("ab") as file:
        return subprocess.Popen([sys.executable, "-c", program], stdout=file, stderr=file)


class Greedy(MaskedCourier):
    """The site ``hospital-1`` asks everyone for a second list in the same round, one that lacks a participant."""

    told: ClassVar[list[tuple[str, str]]] = []

    def ask(self, action: Any) -> None:
        super().ask(action)
        if self._model.name == "hospital-1":
            fewer = [self._declared[name, action.round] for name in action.participants[1:]]
            for name in action.participants[1:]:
                self._transport.say(name, Participants(round=action.round, participants=pack(fewer)))

    def said(self, event: Any) -> list[Any]:
        if isinstance(event.message, Decline):
            Greedy.told.append((event.name, event.message.reason))
        return super().said(event)


def test_a_receiver_that_asks_for_two_lists_is_refused(
    daemons: Callable[..., Daemons], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = daemons({**MESH, "training.rounds": 1, "gossip.deadline": 4.0})
    monkeypatch.setattr("flop_p2p.node.daemon.MaskedCourier", Greedy)
    Greedy.told, Recording.sent = [], []
    asyncio.run(run_nodes(federation.sites.values(), Recording))
    assert {name for name, _ in Greedy.told} == {"hospital-3", "hospital-4", "hospital-5"}
    assert all("asks for a second list of participants in round 1" in reason for _, reason in Greedy.told)
    answered = [outgoing.participants for _, receiver, outgoing in Recording.sent if receiver == "hospital-1"]
    assert len(answered) == 4
    assert len(set(answered)) == 1


class Delaying(MaskedCourier):
    """``hospital-1`` sends its masked body of round 1 to ``hospital-2`` only when it is late."""

    async def _answer(self, receiver: str, job: Any) -> None:
        if (self._model.name, receiver) == ("hospital-1", "hospital-2") and job.args[0] == 0:
            await asyncio.sleep(1.6)
        await super()._answer(receiver, job)


def test_a_masked_body_that_comes_late_is_dropped(
    daemons: Callable[..., Daemons], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    federation = daemons({**MASKED, "training.rounds": 40, "gossip.deadline": 1.5})
    monkeypatch.setattr("flop_p2p.node.daemon.MaskedCourier", Delaying)
    with caplog.at_level("INFO"):
        asyncio.run(run_nodes(federation.sites.values()))
    assert federation.summary("hospital-2")["masked_skips"] == [1]
    assert all(federation.summary(name)["completed"] == 40 for name in federation.sites)
    assert "masked body of hospital-1 for round 1 not used: it is late" in caplog.text


class Forging(MaskedCourier):
    """``hospital-1`` sends other numbers than those that it masked."""

    def _masked(self, *arguments: Any) -> OutgoingBody:
        outgoing = super()._masked(*arguments)
        if self._model.name != "hospital-1":
            return outgoing
        forged = np.random.default_rng(0).integers(2**32, size=len(outgoing.body), dtype=np.uint32)
        return replace(outgoing, body=forged, sha256=hashlib.sha256(forged.data).digest())


def test_a_sum_that_no_bodies_can_have_is_not_mixed(
    daemons: Callable[..., Daemons], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = daemons({**MASKED, "training.rounds": 2})
    monkeypatch.setattr("flop_p2p.node.daemon.MaskedCourier", Forging)
    asyncio.run(run_nodes(federation.sites.values()))
    for name, neighbours in (("hospital-2", 2), ("hospital-4", 2), ("hospital-3", 0)):
        assert len(federation.summary(name)["masked_skips"]) == neighbours
    assert all(np.isfinite(body).all() for body in bodies(federation).values())


def test_nodes_that_restart_go_on_and_answer_no_list_twice(daemons: Callable[..., Daemons]) -> None:
    federation = daemons({**MASKED, "training.rounds": 12, "gossip.isolated": "wait", "gossip.deadline": 5.0})

    async def run(stop_after: int | None) -> list[dict[str, Any]]:
        nodes = [Node(load_site(site.settings)) for site in federation.sites.values()]
        try:
            running = asyncio.gather(*(node.run() for node in nodes))
            while stop_after is not None and min(node.snapshot()["completed"] for node in nodes) < stop_after:
                await asyncio.sleep(0.005)
            for node in nodes if stop_after is not None else ():
                node.driver.stop()
            return await running
        finally:
            for node in nodes:
                node.lock.release()

    asyncio.run(run(3))
    lost = federation.sites["hospital-2"].state
    newest = max(lost.glob("checkpoint-*.safetensors"), key=lambda path: int(path.stem.split("-")[1]))
    newest.write_bytes(b"damaged")  # it goes on from the one before, which knows less than it has declared
    finished = asyncio.run(run(None))
    assert all(summary["completed"] == 12 for summary in finished)
    assert all(len(summary["masked_skips"]) <= 4 for summary in finished)
    for name in federation.sites:
        lines = (federation.sites[name].state / "egress.jsonl").read_text().splitlines()
        sent = [(line["receiver"], line["round"]) for line in map(json.loads, lines) if line["kind"] == "body"]
        assert len(sent) == len(set(sent))
