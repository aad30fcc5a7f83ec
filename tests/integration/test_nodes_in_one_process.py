"""Nodes of one process over real sockets: stopped, restarted, and let down by disk and data."""

import asyncio
import json
import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from federation import run_nodes

from flop_p2p.config import load_site
from flop_p2p.errors import EgressError, NodeError
from flop_p2p.node.checkpoint import Checkpoints
from flop_p2p.node.daemon import Node
from flop_p2p.node.egress import EgressLog

TWO = {"data.sites": 2, "topology.name": "full", "training.rounds": 4}


def node_of(federation: Any, name: str = "hospital-1") -> Node:
    return Node(load_site(federation.sites[name].settings))


async def run_both(nodes: list[Node], stop_after: int | None = None) -> list[Any]:
    """Run nodes together; the first is stopped once it has completed so many rounds."""

    async def stop() -> None:
        while nodes[0].snapshot()["completed"] < (stop_after or 0):
            await asyncio.sleep(0.005)
        nodes[0].driver.stop()

    watch = asyncio.create_task(stop()) if stop_after is not None else None
    try:
        return await asyncio.gather(*(node.run() for node in nodes))
    finally:
        for node in nodes:
            node.lock.release()
        if watch is not None:
            watch.cancel()


def test_a_stopped_node_goes_on_where_it_was(daemons: Callable[..., Any]) -> None:
    federation = daemons({**TWO, "training.rounds": 40, "training.local_steps": 3, "gossip.isolated": "wait"})
    nodes = [node_of(federation), node_of(federation, "hospital-2")]

    async def stop_both() -> list[Any]:
        running = asyncio.create_task(run_both(nodes))
        while min(node.snapshot()["completed"] for node in nodes) < 3:
            await asyncio.sleep(0.005)
        for node in nodes:
            node.driver.stop()
        return await running

    stopped = asyncio.run(stop_both())
    assert all(3 <= summary["completed"] < 40 and not summary["complete"] for summary in stopped)
    again = [node_of(federation), node_of(federation, "hospital-2")]
    resumed = [node.protocol.round_index for node in again]
    assert all(before["completed"] - 1 <= now for before, now in zip(stopped, resumed, strict=True))
    finished = asyncio.run(run_both(again))
    for summary in finished:
        assert summary["completed"] == 40
        assert summary["skipped_rounds"] == []
    for name in ("hospital-1", "hospital-2"):
        assert [line["round"] for line in federation.lines(name)] == list(range(1, 41))


def test_a_finished_node_started_again_changes_nothing(daemons: Callable[..., Any]) -> None:
    federation = daemons(TWO)
    asyncio.run(run_nodes(federation.sites.values()))
    files = ("summary.json", "metrics.jsonl", "egress.jsonl")
    before = {name: (federation.sites["hospital-1"].state / name).read_bytes() for name in files}
    node = node_of(federation)
    summary = asyncio.run(node.run())
    assert summary == json.loads(before["summary.json"])
    assert before == {name: (federation.sites["hospital-1"].state / name).read_bytes() for name in files}


def test_without_an_egress_log_a_node_stops(daemons: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    federation = daemons(TWO)
    record, lines = EgressLog.record, []

    def full(self: EgressLog, *arguments: Any, **more: Any) -> bytes:
        lines.append(arguments)
        if len(lines) > 8:
            raise EgressError("egress.jsonl: cannot be written (No space left on device); nothing is sent")
        return record(self, *arguments, **more)

    monkeypatch.setattr(EgressLog, "record", full)
    with pytest.raises(EgressError, match="No space left"):
        asyncio.run(asyncio.wait_for(run_both([node_of(federation), node_of(federation, "hospital-2")]), 60))


def test_a_checkpoint_that_cannot_be_written_stops_a_node(
    daemons: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    federation = daemons(TWO)

    def full(*_: Any) -> None:
        raise NodeError("checkpoint-1.safetensors: cannot be written (No space left on device)")

    monkeypatch.setattr(Checkpoints, "save", full)
    with pytest.raises(NodeError, match="No space left"):
        asyncio.run(asyncio.wait_for(run_both([node_of(federation), node_of(federation, "hospital-2")]), 60))
    egress = (federation.sites["hospital-1"].state / "egress.jsonl").read_text()
    assert '"kind":"body"' not in egress  # a body is stored before its first byte leaves


def test_two_nodes_on_one_state_directory_are_refused(daemons: Callable[..., Any]) -> None:
    federation = daemons(TWO)
    first = node_of(federation)
    with pytest.raises(NodeError, match="another node runs"):
        node_of(federation)
    first.lock.release()
    node_of(federation).lock.release()


def test_other_data_after_a_restart_are_told(daemons: Callable[..., Any], caplog: pytest.LogCaptureFixture) -> None:
    federation = daemons({**TWO, "training.rounds": 60, "training.local_steps": 3})
    asyncio.run(run_both([node_of(federation), node_of(federation, "hospital-2")], stop_after=2))
    data = [federation.sites[name].folder / "data.safetensors" for name in ("hospital-1", "hospital-2")]
    with caplog.at_level(logging.WARNING), suppress(NodeError):
        node_of(federation).lock.release()
    assert "data of this site are others" not in caplog.text
    data[0].write_bytes(data[1].read_bytes())
    with caplog.at_level(logging.WARNING):
        node_of(federation).lock.release()
    assert "data of this site are others" in caplog.text


def test_a_state_directory_of_another_split_is_refused_and_kept(daemons: Callable[..., Any]) -> None:
    federation = daemons(TWO)
    asyncio.run(run_nodes(federation.sites.values()))
    state = federation.sites["hospital-1"].state
    before = (state / "schema.json").read_text()
    common = federation.folder / "federation.toml"
    common.write_text(common.read_text().replace("private = []", 'private = ["body.7.*", "head.*"]'))
    with pytest.raises(NodeError, match="another model or split"):
        node_of(federation)
    assert (state / "schema.json").read_text() == before
