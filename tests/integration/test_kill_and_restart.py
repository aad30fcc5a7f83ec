"""Daemons killed in mid-round: the others go on, the one that was killed comes back."""

import random
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from flop_p2p.config import load_federation, load_site
from flop_p2p.local import run_local
from flop_p2p.local.results import collect
from flop_p2p.node.checkpoint import Checkpoints
from flop_p2p.node.worker import SiteModel

KILLED = "hospital-2"
ROUNDS = 20  # enough for the others to be still at it when the killed one is back


def test_a_killed_node_is_missed_on_time_and_comes_back(daemons: Callable[..., Any], tmp_path: Any) -> None:
    federation = daemons({"training.rounds": ROUNDS, "training.local_steps": 100, "gossip.deadline": 2.0})
    federation.start(prefix=("nice",))  # so that the one that comes back is there before the others are through
    federation.wait_until(KILLED, lambda status: status["round"] == 3 and status["phase"] == "training")
    federation.send(KILLED, signal.SIGKILL)
    killed = time.monotonic()
    federation.wait(KILLED)
    neighbours = ("hospital-1", "hospital-3")
    for name in neighbours:
        status = federation.wait_until(name, lambda status: status["neighbours"][KILLED]["absences"] >= 1)
        assert status["neighbours"][KILLED]["state"] in ("lost", "connecting")
    assert time.monotonic() - killed < 10  # a round, the deadline, and what two busy cores add
    federation.start(KILLED)
    assert set(federation.wait().values()) == {0}
    for name in neighbours:
        summary = federation.summary(name)
        assert summary["completed"] == summary["rounds"] == ROUNDS
        assert not summary["whole"]
        assert KILLED in summary["absences"]
        assert "with fewer neighbours than configured" in federation.events(name)[-1]
        assert KILLED in federation.events(name)[-1]
    first, again = (text for text in federation.events(KILLED) if " is ready: round " in text)
    assert first.endswith(f"round 1 of {ROUNDS}")
    assert not again.endswith(f"round 1 of {ROUNDS}")  # it went on from its checkpoint
    restarted = federation.summary(KILLED)
    assert restarted["completed"] == ROUNDS
    undisturbed = run_local(federation.settings, tmp_path / "undisturbed")
    disturbed = collect(federation.settings, federation.data, list(federation.sites.values()), federation.folder, 0.0)
    accuracy = [each["metrics"]["accuracy"]["mean"] for each in (undisturbed, disturbed)]
    assert accuracy[1] == pytest.approx(accuracy[0], abs=0.02)


def test_ten_kills_leave_no_corrupt_checkpoint(daemons: Callable[..., Any]) -> None:
    rounds = 100_000  # so many that the other one does not come to its end meanwhile
    settings = {"data.sites": 2, "topology.name": "full", "training.rounds": rounds, "training.local_steps": 2}
    federation = daemons(settings)
    draw = random.Random(5)
    federation.start("hospital-1")
    completed = -1
    for _ in range(10):
        federation.start("hospital-2")
        federation.wait_until("hospital-2", lambda status: status["phase"] not in ("starting", "done"))
        time.sleep(draw.uniform(0, 0.5))
        federation.send("hospital-2", signal.SIGKILL)
        assert federation.wait("hospital-2") == {"hospital-2": -signal.SIGKILL}
        site = load_site(federation.sites["hospital-2"].settings)
        checkpoints = Checkpoints(site.state)
        progress = checkpoints.load(SiteModel(load_federation(site.federation), site))
        assert checkpoints.warnings == []
        if progress is not None:
            assert progress.round >= completed
            completed = progress.round
    assert completed > 0
    federation.start("hospital-2")
    federation.wait_until("hospital-2", lambda status: status["round"] > completed)


def test_sigterm_ends_within_ten_seconds_and_nothing_is_lost(daemons: Callable[..., Any]) -> None:
    federation = daemons({"data.sites": 3, "training.rounds": 6, "training.local_steps": 150})
    federation.start()
    federation.wait_until("hospital-1", lambda status: status["round"] == 3 and status["phase"] == "training")
    federation.send("hospital-1", signal.SIGTERM)
    asked = time.monotonic()
    assert federation.wait("hospital-1") == {"hospital-1": 0}
    assert time.monotonic() - asked < 10
    assert federation.events("hospital-1")[-1].startswith("stopped after 2 of 6 rounds")
    federation.wait_until("hospital-2", lambda status: status["neighbours"]["hospital-1"]["state"] == "left")
    federation.start("hospital-1")
    assert set(federation.wait().values()) == {0}
    assert federation.summary("hospital-1")["completed"] == 6
