"""Masked bodies and the messages about them come as they were sent, and nothing unmasked goes with them."""

import asyncio
import hashlib

import numpy as np
import pytest
from network_tools import Node, eventually, make_body, make_nodes, outgoing, running

from flop_p2p.errors import EgressError
from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Lost, OutgoingBody, Said
from flop_p2p.transport.memory import MemoryNetwork
from flop_p2p.transport.outgoing import SEALED_CHUNK_BYTES
from flop_p2p.wire.messages import Decline, Participants, Present
from flop_p2p.wire.participants import Participant, pack

LIST = hashlib.sha256(b"list").digest()
MESSAGES = [
    Present(round=3, key=bytes(range(32)), signature=bytes(range(64))),
    Participants(round=3, participants=pack([Participant(f"site {n:04}", bytes(32), bytes(64)) for n in range(800)])),
    Decline(round=2**31, reason="asked for a second list"),
]


def masked_nodes(parameters: int = 1000, bulk: str = "sealed") -> list[Node]:
    nodes = make_nodes("north", "south", parameters=parameters, bulk=bulk)
    for node in nodes:
        node.masked = True
    return nodes


def masked_body(parameters: int, round_index: int = 3) -> OutgoingBody:
    integers = np.random.default_rng(0).integers(2**32, size=parameters, dtype=np.uint32)
    sha256 = hashlib.sha256(integers.tobytes()).digest()
    return OutgoingBody(round_index, integers, sha256, "masked", participants=LIST)


@pytest.mark.parametrize("carrier", ["sealed", "curve", "memory"])
@pytest.mark.parametrize("parameters", [1, SEALED_CHUNK_BYTES // 4 + 3])
def test_a_masked_body_comes_to_the_bit_with_the_list_that_it_is_for(carrier: str, parameters: int) -> None:
    async def scenario() -> None:
        north, south = masked_nodes(parameters, "curve" if carrier == "curve" else "sealed")
        north.network = south.network = MemoryNetwork() if carrier == "memory" else None
        body = masked_body(parameters)
        async with running(north, south):
            await north.until(Connected)
            north.transport.send("south", body)
            received = await south.until(BodyReceived, round=3)
            assert received.body.dtype == np.uint32
            assert np.array_equal(received.body, body.body)
            assert received.participants == LIST
            await north.until(Delivered, round=3)
            assert ("south", "body", 3, 4 * parameters, body.sha256) in north.egress.lines

    asyncio.run(scenario())


def test_messages_about_masked_bodies_come_logged_and_receipted() -> None:
    async def scenario() -> None:
        north, south = masked_nodes()
        async with running(north, south):
            await north.until(Connected)
            for message in MESSAGES:
                north.transport.say("south", message)
            await south.until(Said, count=3)
            assert sorted((event.message for event in south.seen(Said)), key=str) == sorted(MESSAGES, key=str)
            assert {"present", "participants", "decline"} <= set(north.egress.kinds("south"))
            assert {("present", 3), ("participants", 3), ("decline", 2**31)} <= {
                (kind, round_index) for _, kind, round_index, _ in south.egress.receipts
            }
            north.transport.say("nobody", MESSAGES[0])  # who is no neighbour is told nothing

    asyncio.run(scenario())


def test_a_body_that_is_not_masked_does_not_leave() -> None:
    async def scenario() -> None:
        north, south = masked_nodes()
        async with running(north, south):
            await north.until(Connected)
            north.transport.send("south", outgoing(1, make_body(1000)))
            await eventually(lambda: north.error is not None, "nothing leaves any more")
        assert isinstance(north.error, EgressError)
        assert "body that is not masked was about to leave for south" in str(north.error)
        assert "body" not in north.egress.kinds()

    asyncio.run(scenario())


def test_a_body_that_is_not_masked_is_dropped_where_one_comes() -> None:
    async def scenario() -> None:
        north, south = masked_nodes()
        north.masked = False
        async with running(north, south):
            await north.until(Connected)
            north.transport.send("south", outgoing(1, make_body(1000)))
            status = south.transport.links()["north"]
            await eventually(lambda: status.dropped_frames > 0, "it is counted")
        assert not south.seen(BodyReceived)

    asyncio.run(scenario())


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_without_masking_messages_about_it_are_dropped(message: Present | Participants | Decline) -> None:
    async def scenario() -> None:
        north, south = masked_nodes()
        south.masked = False
        async with running(north, south):
            await north.until(Connected)
            north.transport.say("south", message)
            status = south.transport.links()["north"]
            await eventually(lambda: status.dropped_frames == 1, "it is counted")
            assert not south.seen(Said)
            assert not south.seen(Lost)

    asyncio.run(scenario())
