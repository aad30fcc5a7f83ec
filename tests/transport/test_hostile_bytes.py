"""Whatever comes over the network is dropped and counted, and what is genuine goes on."""

import asyncio
import os
from collections.abc import Callable
from itertools import count

import msgpack
import numpy as np
import pytest
from network_relay import FrameChanger, Frames, Relay
from network_tools import Node, RawMember, eventually, make_body, make_nodes, redirect, running

from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Lost
from flop_p2p.transport.sockets import split_endpoint
from flop_p2p.wire import Credit, FrameHeader, Ready, Receipt

SMALL_CHUNK = 1 << 14
PARAMETERS = 3 * SMALL_CHUNK // 4  # three chunks


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.outgoing.SEALED_CHUNK_BYTES", SMALL_CHUNK)
    monkeypatch.setattr("flop_p2p.transport.incoming.TRANSFER_TIMEOUT", 0.5)


async def pour(endpoint: str, data: bytes) -> None:
    """A plain TCP client that sends bytes and reads what comes back until it is thrown out."""
    reader, writer = await asyncio.open_connection(*split_endpoint(endpoint))
    try:
        writer.write(data)
        await writer.drain()
        async with asyncio.timeout(0.3):
            await reader.read()
    except (OSError, TimeoutError):
        pass
    finally:
        writer.close()


def zmtp(mechanism: bytes) -> bytes:
    """A valid beginning of a ZMTP 3.0 connection, after which rubbish is taken for commands and messages."""
    return b"\xff" + bytes(8) + b"\x7f\x03\x00" + mechanism.ljust(20, b"\x00") + bytes(32)


def test_random_bytes_to_both_ports_change_nothing_for_the_bodies_that_flow() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=PARAMETERS)
        bodies = [make_body(PARAMETERS, seed) for seed in range(3)]
        rubbish = [os.urandom(size) for size in (1, 11, 500, 70_000)]
        rubbish += [zmtp(b"NULL") + os.urandom(5000), zmtp(b"CURVE") + os.urandom(5000), b"GET / HTTP/1.0\r\n\r\n"]
        rubbish += [zmtp(b"NULL") + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER" + os.urandom(3000)]
        async with running(north, south):
            await north.until(Connected)
            attacks = [
                asyncio.create_task(pour(port, data)) for port in (south.control, south.bulk) for data in rubbish
            ]
            for number, body in enumerate(bodies):
                north.send("south", number, body)
                received = await south.until(BodyReceived, round=number)
                assert np.array_equal(received.body, body)
            await asyncio.gather(*attacks)
            north.send("south", 9, bodies[0])
            await north.until(Delivered, round=9)
        assert not north.seen(Lost)
        assert not south.seen(Lost)

    asyncio.run(scenario())


def test_malformed_messages_of_a_member_are_counted_and_its_session_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        malformed: list[Frames] = [
            [b""],
            [b"\xc1"],
            [os.urandom(300)],
            [msgpack.packb([1, bytes(32), b"\x80"])],
            [b"one", b"two"],
            [b"one", b"two", b"three"],
        ]
        async with running(north, south):
            await south.until(Connected)
            async with RawMember(north, south) as raw:
                for parts in malformed * 3:
                    await raw.dealer.send_multipart(parts)
                status = south.transport.links()["north"]
                await eventually(lambda: status.dropped_frames == 3 * len(malformed), "they are counted")
            north.send("south", 1, make_body(5))
            await south.until(BodyReceived)
            assert not south.seen(Lost)
        logged = [record for record in caplog.records if "north: dropped" in record.getMessage()]
        assert 1 <= len(logged) <= len(malformed)

    asyncio.run(scenario())


def test_receipts_and_credits_that_nobody_is_owed_are_dropped() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            await raw.send(raw.hello())
            await raw.receive()
            await raw.send(Ready(session=b"12345678"))
            await south.until(Connected)
            await raw.send(Credit(chunks=1))
            await raw.send(Receipt(round=1, chain=bytes(32)))
            await raw.send(Ready(session=b"12345678"))
            await eventually(lambda: south.transport.links()["north"].dropped_frames == 3, "all three are counted")
        assert not south.seen(Delivered)

    asyncio.run(scenario())


def test_a_flood_of_messages_is_dropped_before_it_fills_the_log() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            for _ in range(2000):
                await raw.send(raw.hello(probe=True))
            await eventually(lambda: south.transport.links()["north"].dropped_frames > 1000, "most are dropped")
        assert len(south.egress.receipts) < 1000

    asyncio.run(scenario())


def flipped(part: int, at: int) -> Callable[[Frames], list[Frames]]:
    def change(frames: Frames) -> list[Frames]:
        changed = bytearray(frames[part])
        changed[at] ^= 1
        return [[bytes(changed) if number == part else frame for number, frame in enumerate(frames)]]

    return change


def once(change: Callable[[Frames], list[Frames]], index: int) -> Callable[[Frames], list[Frames]]:
    """Apply ``change`` to the first frame of the body with this index."""
    done = count()

    def changing(frames: Frames) -> list[Frames]:
        return change(frames) if FrameHeader.decode(frames[0]).index == index and not next(done) else [frames]

    return changing


async def exchange_through(change: Callable[[Frames], list[Frames]]) -> tuple[Node, Node]:
    """North sends a body to south over a relay that changes frames, and once more whenever the two connect again."""
    north, south = make_nodes("north", "south", parameters=PARAMETERS)
    body = make_body(PARAMETERS)
    async with Relay(south.bulk) as relay:
        relay.forth = lambda: FrameChanger(change)
        redirect(north, "south", bulk=relay.endpoint)
        async with running(north, south):
            sent = 0
            while not north.seen(Delivered):
                if len(north.seen(Connected)) > sent:
                    sent += 1
                    north.send("south", 1, body)
                await asyncio.sleep(0.01)
            for received in south.seen(BodyReceived):
                assert np.array_equal(received.body, body)
    return north, south


@pytest.mark.parametrize("index", [0, 1, 2, 3])
@pytest.mark.parametrize(
    "change",
    [flipped(1, -1), flipped(1, 40), flipped(0, -1), lambda frames: [[frames[0], frames[1][:-1]]], lambda frames: []],
    ids=["tag", "data", "header", "truncated", "missing"],
)
def test_an_altered_or_missing_frame_is_never_mixed_and_the_body_is_sent_again(
    change: Callable[[Frames], list[Frames]], index: int
) -> None:
    async def scenario() -> None:
        async with asyncio.timeout(8):
            north, south = await exchange_through(once(change, index))
        assert len(south.seen(Lost)) == 1
        assert len(south.seen(BodyReceived)) == 1
        assert len(north.seen(Connected)) == 2

    asyncio.run(scenario())


def test_replayed_and_foreign_frames_are_dropped_and_counted_and_nothing_else_happens() -> None:
    kept: list[Frames] = []

    def change(frames: Frames) -> list[Frames]:
        kept.append(frames)
        foreign = [frames[0], os.urandom(len(frames[1]))]
        return [foreign, frames, frames, kept[0], [os.urandom(50), b""], [b"", b"", b""]]

    async def scenario() -> None:
        north, south = await exchange_through(change)
        assert not north.seen(Lost)
        assert not south.seen(Lost)
        assert len(south.seen(BodyReceived)) == 1
        assert south.transport.links()["north"].dropped_frames == 4 * len(kept)

    asyncio.run(scenario())


def test_a_frame_of_more_than_the_largest_size_ends_its_connection_and_no_other() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            await south.until(Connected)
            null = zmtp(b"NULL") + b"\x04\x19\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
            reader, writer = await asyncio.open_connection(*split_endpoint(south.bulk))
            writer.write(null + b"\x02" + (1 << 40).to_bytes(8, "big") + bytes(1000))
            async with asyncio.timeout(2):
                while await reader.read(1000):
                    pass
            writer.close()
            north.send("south", 1, make_body(5))
            await south.until(BodyReceived)

    asyncio.run(scenario())
