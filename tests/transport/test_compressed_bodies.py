"""Encoded bodies travel as agreed on; changes go to whoever holds the body that they change, to all others it whole."""

import asyncio
import hashlib
from typing import Any

import numpy as np
import pytest
from network_tools import Node, eventually, make_body, make_nodes, running

from flop_p2p.transport.base import Body, BodyReceived, Connected, Delivered, Lost, OutgoingBody, Payload
from flop_p2p.transport.memory import MemoryNetwork
from flop_p2p.transport.outgoing import SEALED_CHUNK_BYTES
from flop_p2p.wire.encodings import add_top_k, decode_int8, encode_bfloat16, encode_int8, encode_top_k

PARAMETERS = 1000
WHOLE, CHANGES = 4 * PARAMETERS, 60
TOP_K = 0.01


def sha256(data: np.ndarray) -> bytes:
    return hashlib.sha256(data.tobytes()).digest()


def bodies(count: int) -> list[tuple[OutgoingBody, Body]]:
    """What a site tells in successive rounds, each as changes and whole, and the body that it makes public by it."""
    public = make_body(PARAMETERS)
    told = [(OutgoingBody(0, public, sha256(public)), public)]
    for round_index in range(1, count):
        data = encode_top_k(make_body(PARAMETERS, round_index) - public, TOP_K)
        public = add_top_k(public, data, TOP_K)
        changes = Payload(data, sha256(data), "top-k", round_index - 1)
        told.append((OutgoingBody(round_index, public, sha256(public), changes=changes), public))
    return told


def sizes(node: Node) -> list[tuple[int, int]]:
    """Round and bytes of every body that left, by the egress log."""
    return [(line[2], line[3]) for line in node.egress.lines if line[1] == "body"]


async def tell(node: Node, other: Node, told: tuple[OutgoingBody, Body]) -> None:
    """Send one body and see that it comes as it is."""
    outgoing, public = told
    node.transport.send(other.name, outgoing)
    received = await other.until(BodyReceived, round=outgoing.round)
    assert np.array_equal(received.body, public)
    await node.until(Delivered, round=outgoing.round)


@pytest.mark.parametrize("bulk", ["sealed", "curve"])
@pytest.mark.parametrize("parameters", [1, PARAMETERS, SEALED_CHUNK_BYTES + 3])
def test_an_int8_body_comes_decoded_and_the_log_tells_what_left(bulk: str, parameters: int) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=parameters, bulk=bulk, compression="int8")
        data = encode_int8(make_body(parameters), np.random.default_rng(0))
        async with running(north, south):
            await north.until(Connected)
            north.transport.send("south", OutgoingBody(3, data, sha256(data), "int8"))
            received = await south.until(BodyReceived, round=3)
            assert np.array_equal(received.body, decode_int8(data, parameters))
            await north.until(Delivered, round=3)
        assert ("south", "body", 3, data.nbytes, sha256(data)) in north.egress.lines

    asyncio.run(scenario())


def test_another_encoding_than_agreed_is_dropped_and_the_session_goes_on() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS, compression="int8")
        wrong, right = (
            encode_bfloat16(make_body(PARAMETERS)),
            encode_int8(make_body(PARAMETERS), np.random.default_rng()),
        )
        async with running(north, south):
            await north.until(Connected)
            north.transport.send("south", OutgoingBody(1, wrong, sha256(wrong), "bfloat16"))
            status = south.transport.links()["north"]
            await eventually(lambda: status.dropped_frames == 1, "it is counted")
            north.transport.send("south", OutgoingBody(2, right, sha256(right), "int8"))
            await south.until(BodyReceived, round=2)
        assert len(south.seen(BodyReceived)) == 1
        assert not south.seen(Lost)

    asyncio.run(scenario())


@pytest.mark.parametrize("carrier", ["sealed", "memory"])
def test_the_first_body_is_whole_and_then_changes_do(carrier: str) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS, compression="top-k")
        north.network = south.network = MemoryNetwork() if carrier == "memory" else None
        async with running(north, south):
            await north.until(Connected)
            for told in bodies(4):
                await tell(north, south, told)
        assert sizes(north) == [(0, WHOLE), (1, CHANGES), (2, CHANGES), (3, CHANGES)]

    asyncio.run(scenario())


def test_a_body_that_was_skipped_makes_the_next_one_whole() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS, compression="top-k")
        told = bodies(5)
        async with running(north, south):
            await north.until(Connected)
            for round_index in (0, 1, 3, 4):
                await tell(north, south, told[round_index])
        assert sizes(north) == [(0, WHOLE), (1, CHANGES), (3, WHOLE), (4, CHANGES)]

    asyncio.run(scenario())


def test_over_a_new_connection_the_first_body_is_whole_again() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS, compression="top-k")
        north.network = south.network = network = MemoryNetwork()
        told = bodies(4)
        async with running(north, south):
            await north.until(Connected)
            for round_index in (0, 1):
                await tell(north, south, told[round_index])
            network.cut("north", "south")
            await north.until(Lost)
            network.mend("north", "south")
            await north.until(Connected, 2)
            for round_index in (2, 3):
                await tell(north, south, told[round_index])
        assert sizes(north) == [(0, WHOLE), (1, CHANGES), (2, WHOLE), (3, CHANGES)]

    asyncio.run(scenario())


def test_fresh_keys_on_the_same_connection_change_nothing() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS, compression="top-k", renew_keys_every=1)
        async with running(north, south):
            await north.until(Connected)
            for told in bodies(4):
                await tell(north, south, told)
        assert sizes(north) == [(0, WHOLE), (1, CHANGES), (2, CHANGES), (3, CHANGES)]
        assert north.egress.kinds().count("hello") > 1

    asyncio.run(scenario())


def test_after_a_lost_body_changes_are_refused_and_the_edge_begins_anew() -> None:
    """The sender believes that a body came; the receiver dropped it: nothing wrong may be mixed from then on."""

    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS, compression="top-k")
        told = bodies(4)
        altered: Any = told[1][0].changes
        async with running(north, south):
            await north.until(Connected)
            await tell(north, south, told[0])
            lost = OutgoingBody(1, told[1][1], told[1][0].sha256, changes=Payload(altered.data, bytes(32), "top-k", 0))
            north.transport.send("south", lost)
            status = south.transport.links()["north"]
            await eventually(lambda: status.dropped_frames == 1, "the altered body is dropped")
            north.transport.send("south", told[2][0])
            reason = (await south.until(Lost)).reason
            assert reason == "changes a body of round 1, and that of 0 is here"
            await north.until(Connected, 2)
            await tell(north, south, told[2])
            await tell(north, south, told[3])
        assert [event.round for event in south.seen(BodyReceived)] == [0, 2, 3]
        assert sizes(north) == [(0, WHOLE), (1, CHANGES), (2, CHANGES), (2, WHOLE), (3, CHANGES)]

    asyncio.run(scenario())


def test_a_body_that_changes_may_come_to_is_not_written_over() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS, compression="top-k")
        async with running(north, south):
            await north.until(Connected)
            for told in bodies(3):
                await tell(north, south, told)
                south.transport.free(south.seen(BodyReceived)[-1].body)
        for received, (_, public) in zip(south.seen(BodyReceived), bodies(3), strict=True):
            assert np.array_equal(received.body, public)

    asyncio.run(scenario())
