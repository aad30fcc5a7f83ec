"""Neighbours learn at once that a node has come to another round."""

import asyncio

import pytest
from network_tools import eventually, make_body, make_nodes, running

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.transport.base import BodyReceived, Connected, Progress, Silent
from flop_p2p.transport.memory import MemoryNetwork

SELDOM = GossipSettings(heartbeat=30.0, lost_after=90.0)


@pytest.mark.parametrize("network", [None, MemoryNetwork()], ids=["sockets", "memory"])
def test_a_new_round_is_told_at_once_and_once(network: MemoryNetwork | None) -> None:
    async def scenario() -> None:
        nodes = north, south, west = make_nodes("north", "south", "west", gossip=SELDOM)
        for node in nodes:
            node.network = network
        async with running(*nodes):
            for other in (north, west):
                await south.until(Connected, name=other.name)
                await other.until(Connected, name="south")
                await south.until(Progress, name=other.name)
            for _ in range(3):
                south.transport.set_round(5)
            await north.until(Progress, name="south", round=5)
            await west.until(Progress, name="south", round=5)
            await asyncio.sleep(0.1)
            assert len(north.seen(Progress, name="south", round=5)) == 1

    asyncio.run(scenario())


def test_who_is_sent_a_body_soon_is_not_told_the_round_before() -> None:
    async def scenario() -> None:
        nodes = north, south, west = make_nodes("north", "south", "west", gossip=SELDOM, parameters=5)
        async with running(*nodes):
            for other in (north, west):
                await south.until(Connected, name=other.name)
                await other.until(Progress, name="south")
            south.transport.set_round(5, soon=("north",))
            await west.until(Progress, name="south", round=5)
            south.send("north", 5, make_body(5))
            await north.until(BodyReceived, name="south", round=5)
            assert not north.seen(Progress, name="south", round=5)

    asyncio.run(scenario())


def test_a_round_that_cannot_be_told_is_an_error_of_the_next_event() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", gossip=SELDOM)
        north.network = south.network = MemoryNetwork()
        async with running(north, south):
            await north.until(Connected)
            north.egress.broken = True
            north.transport.set_round(5)
            await eventually(lambda: north.error is not None, "the error surfaces")

    asyncio.run(scenario())


@pytest.mark.parametrize("network", [None, MemoryNetwork()], ids=["sockets", "memory"])
def test_silence_is_told_at_once_and_to_whoever_connects_later(network: MemoryNetwork | None) -> None:
    async def scenario() -> None:
        nodes = north, south, west = make_nodes("north", "south", "west")
        for node in nodes:
            node.network = network
        async with running(north, south):
            await south.until(Connected, name="north")
            await north.until(Connected, name="south")
            assert south.transport.silence(5)
            assert not south.transport.silence(6)
            await north.until(Silent, name="south", round=5)
            async with running(west):
                await west.until(Silent, name="south", round=5)
            assert len(north.seen(Silent)) == 1

    asyncio.run(scenario())
