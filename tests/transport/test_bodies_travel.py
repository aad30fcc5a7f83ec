"""Bodies travel between nodes, whole and unchanged."""

import asyncio

import numpy as np
import pytest
from network_tools import make_body, make_nodes, pairs, running

from flop_p2p.transport.base import BodyReceived, Connected, Delivered
from flop_p2p.transport.memory import MemoryNetwork
from flop_p2p.transport.outgoing import SEALED_CHUNK_BYTES


@pytest.mark.parametrize("carrier", ["sealed", "curve", "memory"])
@pytest.mark.parametrize("parameters", [1, 1000, SEALED_CHUNK_BYTES // 4 + 1, 5 * SEALED_CHUNK_BYTES // 4 + 3])
def test_two_nodes_exchange_bodies_of_any_size_in_both_directions_at_once(carrier: str, parameters: int) -> None:
    async def scenario() -> None:
        north, south = make_nodes(
            "north", "south", parameters=parameters, bulk="curve" if carrier == "curve" else "sealed"
        )
        north.network = south.network = MemoryNetwork() if carrier == "memory" else None
        bodies = {"north": make_body(parameters, 1), "south": make_body(parameters, 2)}
        async with running(north, south):
            for node, other in pairs([north, south]):
                await node.until(Connected, name=other.name)
            for node, other in pairs([north, south]):
                node.send(other.name, 3, bodies[node.name])
            for node, other in pairs([north, south]):
                received = await node.until(BodyReceived, name=other.name, round=3)
                assert np.array_equal(received.body, bodies[other.name])
                assert received.body.dtype == np.float32
                await node.until(Delivered, name=other.name, round=3)

    asyncio.run(scenario())
