"""The transport in memory behaves as the one over sockets does."""

import asyncio

import numpy as np
from network_tools import Node, eventually, make_body, make_nodes, pairs, running

from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Left, Lost, Progress
from flop_p2p.transport.memory import MemoryNetwork


def in_memory(*names: str, parameters: int = 5, **changes: object) -> tuple[MemoryNetwork, list[Node]]:
    network = MemoryNetwork()
    nodes = make_nodes(*names, parameters=parameters, **changes)
    for node in nodes:
        node.network = network
    return network, nodes


def test_three_nodes_exchange_bodies() -> None:
    async def scenario() -> None:
        _, nodes = in_memory("east", "north", "south", parameters=1000)
        bodies = {node.name: make_body(1000, seed) for seed, node in enumerate(nodes)}
        async with running(*nodes):
            for node, other in pairs(nodes):
                await node.until(Connected, name=other.name)
            for node, other in pairs(nodes):
                node.send(other.name, 1, bodies[node.name])
            for node, other in pairs(nodes):
                received = await node.until(BodyReceived, name=other.name)
                assert np.array_equal(received.body, bodies[other.name])
                assert not np.shares_memory(received.body, bodies[other.name])
                await node.until(Delivered, name=other.name)
            nodes[0].transport.set_round(4)
            await nodes[1].until(Progress, name="east", round=4)

    asyncio.run(scenario())


def test_a_link_can_be_cut_and_mended() -> None:
    async def scenario() -> None:
        network, (east, north, south) = in_memory("east", "north", "south")
        async with running(east, north, south):
            for node, other in pairs([east, north, south]):
                await node.until(Connected, name=other.name)
            network.cut("north", "south")
            await north.until(Lost, name="south")
            await south.until(Lost, name="north")
            await asyncio.sleep(0.05)
            north.send("east", 1, make_body(5))
            await east.until(BodyReceived, name="north")
            assert len(north.seen(Connected, name="south")) == 1
            network.mend("north", "south")
            await north.until(Connected, 2, name="south")
            await south.until(Connected, 2, name="north")
            north.send("south", 1, make_body(5))
            await south.until(BodyReceived)
        assert not east.seen(Lost, name="north")

    asyncio.run(scenario())


def test_a_node_that_closes_is_lost_and_found_again() -> None:
    async def scenario() -> None:
        _, (north, south) = in_memory("north", "south")
        async with running(north):
            await south.start()
            await north.until(Connected)
            await south.stop()
            await north.until(Lost)
            async with running(south):
                await north.until(Connected, 2)

    asyncio.run(scenario())


def test_the_gate_and_the_egress_log_are_asked_as_over_sockets() -> None:
    async def scenario() -> None:
        _, (north, south) = in_memory("north", "south")
        south.gate.federation = "other"
        async with running(north, south):
            await eventually(lambda: north.transport.links()["south"].state == "refused", "north is refused")
            assert "another federation" in north.transport.links()["south"].reason
            assert "hello" in north.egress.kinds()
            south.gate.federation = north.gate.federation
            await north.until(Connected)
            north.egress.broken = True
            north.send("south", 1, make_body(5))
            await eventually(lambda: north.error is not None, "the error surfaces")

    asyncio.run(scenario())


def test_goodbye_is_said() -> None:
    async def scenario() -> None:
        _, (north, south) = in_memory("north", "south")
        async with running(north, south):
            await north.until(Connected)
            north.send("south", 2, make_body(5))
            await north.transport.goodbye(2, True)
            assert await south.until(Left) == Left("north", 2, True)
            assert south.seen(BodyReceived, round=2)

    asyncio.run(scenario())
