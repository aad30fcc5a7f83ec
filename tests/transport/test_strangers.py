"""Who knocks without being a neighbour is counted, and logged once for each address."""

import asyncio
import os
from contextlib import suppress

import pytest
import zmq
import zmq.asyncio
from network_tools import Node, eventually, make_nodes, running

from flop_p2p.transport.base import Connected
from flop_p2p.transport.sockets import curve_client, split_endpoint
from flop_p2p.transport.zeromq import ZmqTransport

NULL = b"\xff" + bytes(8) + b"\x7f\x03\x00" + b"NULL".ljust(20, b"\x00") + bytes(32)


def strangers(node: Node) -> int:
    assert isinstance(node.transport, ZmqTransport)
    return node.transport.strangers


def lines(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


async def knock(endpoint: str, data: bytes) -> None:
    reader, writer = await asyncio.open_connection(*split_endpoint(endpoint))
    await asyncio.sleep(0.05)  # the address is that of an open connection
    with suppress(OSError):
        writer.write(data)
        while await reader.read(1000):
            pass
    writer.close()


@pytest.mark.parametrize("data", [b"\x00\x01" + os.urandom(500), b"GET / HTTP/1.0\r\n\r\n", NULL + b"\x00" * 500])
def test_rubbish_at_the_control_port_is_logged_once(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            await south.until(Connected)
            for number in range(3):
                await knock(south.control, data)
                await eventually(lambda wanted=number + 1: strangers(south) == wanted, "it is counted")

    asyncio.run(scenario())
    assert len(lines(caplog, "does not speak as a node does")) == 1
    assert len(lines(caplog, "127.0.0.1: whoever connects")) == 1


def test_a_frame_of_nobodys_is_logged_once_with_its_address(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            await south.until(Connected)
            context = zmq.asyncio.Context()
            dealer = context.socket(zmq.DEALER)
            dealer.connect(south.bulk)
            for _ in range(5):
                await dealer.send_multipart([b"header", b"sealed"])
            await eventually(lambda: strangers(south) == 5, "all are counted")
            dealer.close(0)
            context.term()

    asyncio.run(scenario())
    assert len(lines(caplog, "127.0.0.1: a frame came")) == 1


def test_neighbours_and_refused_keys_are_not_counted(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        (stranger,) = make_nodes("east")
        async with running(south):
            for number in range(2):
                async with running(north):
                    await south.until(Connected, number + 1)
            context = zmq.asyncio.Context()
            dealer = curve_client(context, stranger.keys, south.keys.public.decode())
            dealer.connect(south.control)
            await eventually(lambda: bool(lines(caplog, "is no neighbour's")), "the key is refused")
            await asyncio.sleep(0.2)
            dealer.close(0)
            context.term()
            assert strangers(south) == 0

    asyncio.run(scenario())
