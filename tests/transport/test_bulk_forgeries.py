"""Whoever answers at the bulk address holds no key: nothing that he says is taken for a neighbour's message."""

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import zmq
import zmq.asyncio
from network_tools import Node, RawMember, eventually, free_port, make_body, make_nodes, redirect, running

from flop_p2p.transport.base import BodyReceived, Connected, Left, Lost, Progress
from flop_p2p.transport.zeromq import ZmqTransport
from flop_p2p.wire import AnyMessage, Goodbye, Heartbeat, Receipt, Refuse, Unknown, encode, envelope

FORGED = b"\xee" * 32
MESSAGES = [
    Heartbeat(round=12345, sent=1.0, echo=0.0),
    Receipt(round=0, chain=bytes(32)),
    Refuse(reason="forged"),
    Unknown(),
    Goodbye(last_round=7, finished=True),
]


@asynccontextmanager
async def stranger_at_the_bulk_port_of(south: Node, north: Node) -> AsyncIterator[zmq.asyncio.Socket]:
    context = zmq.asyncio.Context()
    socket = context.socket(zmq.DEALER)
    endpoint = f"tcp://127.0.0.1:{free_port()}"
    socket.bind(endpoint)
    redirect(north, south.name, bulk=endpoint)
    try:
        yield socket
    finally:
        socket.close(0)
        context.term()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: message.kind)
def test_a_message_from_the_bulk_connection_is_dropped(message: AnyMessage) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with stranger_at_the_bulk_port_of(south, north) as stranger, running(south, north):
            await north.until(Connected)
            await stranger.send(envelope(encode(message), FORGED))
            status = north.transport.links()["south"]
            await eventually(lambda: status.dropped_frames == 1, "it is counted")
            assert status.state == "connected"
            assert not north.seen(Progress, round=12345) + north.seen(Left) + north.seen(Lost)
            assert all(receipt[3] != FORGED for receipt in north.egress.receipts)

    asyncio.run(scenario())


def test_what_is_no_frame_is_dropped_from_the_bulk_connection() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with stranger_at_the_bulk_port_of(south, north) as stranger, running(south, north):
            await north.until(Connected)
            strange = [[b""], [b"", b""], [os.urandom(129), b"1"], [b"", b"", b""], [b"x"] * 9]
            for parts in strange:
                await stranger.send_multipart(parts)
            status = north.transport.links()["south"]
            await eventually(lambda: status.dropped_frames == len(strange), "all are counted")
            assert not north.seen(Lost)

    asyncio.run(scenario())


def test_a_frame_over_the_message_connection_is_refused_where_frames_have_their_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south, north):
            await north.until(Connected)
            await south.until(Connected)
            taken: list[bytes] = []
            link = north.transport._links["south"]
            monkeypatch.setattr(link, "frame", lambda header, _: taken.append(header))
            route = south.transport._links["north"].way.control  # type: ignore[union-attr]
            route.send([b"header", b"sealed"])
            await eventually(lambda: link.status.dropped_frames == 1, "it is counted")
            assert taken == []

    asyncio.run(scenario())


def test_the_listening_side_takes_no_message_from_its_bulk_port() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south, north):
            await south.until(Connected)
            context = zmq.asyncio.Context()
            stranger = context.socket(zmq.DEALER)
            stranger.connect(south.bulk)
            for message in MESSAGES:
                await stranger.send(envelope(encode(message), FORGED))
            transport = south.transport
            assert isinstance(transport, ZmqTransport)
            await eventually(lambda: transport.strangers == len(MESSAGES), "all are counted")
            assert not south.seen(Left) + south.seen(Lost)
            assert all(receipt[3] != FORGED for receipt in south.egress.receipts)
            north.send("south", 1, make_body(5))
            await south.until(BodyReceived)
            async with RawMember(north, south) as raw:
                await raw.dealer.send_multipart([b"header", b"sealed"])
                await eventually(lambda: south.transport.links()["north"].dropped_frames == 1, "a frame among messages")
            stranger.close(0)
            context.term()

    asyncio.run(scenario())
