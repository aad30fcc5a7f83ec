"""The probe of preflight: what it finds out about a neighbour, without joining it."""

import asyncio
import time
from dataclasses import replace

import pytest
import zmq
from network_tools import Node, make_nodes, running

from flop_p2p.errors import EgressError
from flop_p2p.transport.base import Connected
from flop_p2p.transport.probe import ProbeResult, probe


async def ask(node: Node) -> ProbeResult:
    return await probe(
        node.peers[0],
        name=node.name,
        keys=node.keys,
        gate=node.gate,
        egress=node.egress,
        gossip=node.gossip,
        proxy=node.proxy,
    )


@pytest.mark.parametrize("bulk", ["sealed", "curve"])
def test_a_neighbour_that_runs_and_agrees_is_accepted(bulk: str) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", bulk=bulk)
        south.gate.changes["time"] = time.time() + 50
        async with running(south):
            result = await ask(north)
            assert (result.name, result.reached, result.accepted, result.reason) == ("south", True, True, "")
            assert 0 < (result.latency or 0) < 1
            assert 45 < (result.clock_skew or 0) < 51
        assert not south.seen(Connected)
        assert north.egress.kinds() == ["hello"]

    asyncio.run(scenario())


def test_the_side_that_is_usually_dialled_can_probe_too() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north):
            assert (await ask(south)).accepted

    asyncio.run(scenario())


def test_refusals_of_either_side_are_told() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        south.gate.federation = "other"
        async with running(south):
            result = await ask(north)
            assert (result.reached, result.accepted) == (True, False)
            assert result.reason.startswith("refuses this node: another federation")
            south.gate.accepts_all = True
            result = await ask(north)
            assert (result.reached, result.accepted) == (True, False)
            assert result.reason == "another federation: other"

    asyncio.run(scenario())


def test_what_is_not_reached_says_why() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        result = await ask(north)
        assert (result.reached, result.accepted, result.latency) == (False, False, None)
        assert result.reason == f"nobody listens at {south.control}"
        peer = north.peers[0]
        async with running(south):
            north.peers = [replace(peer, bulk=make_nodes("east")[0].bulk)]
            assert "nobody listens" in (await ask(north)).reason
            north.peers = [replace(peer, curve_keys=(zmq.curve_keypair()[0].decode(),))]
            assert "expected key" in (await ask(north)).reason
            north.peers = [replace(peer, curve_keys=("not a key",))]
            assert "no CURVE key" in (await ask(north)).reason
            north.peers = [replace(peer, control=None)]
            assert "no address" in (await ask(north)).reason
            north.peers = [replace(peer, control="tcp://no-such-host.invalid:1")]
            assert "host name no-such-host.invalid is unknown" in (await ask(north)).reason

    asyncio.run(scenario())


def test_a_probe_that_cannot_be_recorded_is_not_sent() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        north.egress.broken = True
        async with running(south):
            with pytest.raises(EgressError):
                await ask(north)
        assert south.egress.receipts == []

    asyncio.run(scenario())
