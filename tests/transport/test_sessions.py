"""Sessions over a long life: renewed keys, queues that stay short, goodbyes."""

import asyncio
import time

import numpy as np
import pytest
from network_relay import FrameChanger, Frames, Relay
from network_tools import eventually, make_body, make_nodes, outgoing, redirect, running

from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Left, Lost
from flop_p2p.wire import FrameHeader


@pytest.mark.parametrize("bulk", ["sealed", "curve"])
@pytest.mark.parametrize("every", [1, 3])
def test_keys_are_renewed_under_traffic_and_no_body_is_lost(
    bulk: str, every: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flop_p2p.transport.outgoing.SEALED_CHUNK_BYTES", 1000)
    monkeypatch.setattr("flop_p2p.transport.outgoing.CURVE_CHUNK_BYTES", 1000)

    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=3000, bulk=bulk, renew_keys_every=every)
        bodies = [make_body(3000, seed) for seed in range(15)]
        async with running(north, south):
            await south.until(Connected)
            await north.until(Connected)
            for number, body in enumerate(bodies):
                north.send("south", number, body)
                south.send("north", number, body)
                await asyncio.gather(north.until(Delivered, round=number), south.until(Delivered, round=number))
            for node in (north, south):
                received = node.seen(BodyReceived)
                assert [event.round for event in received] == list(range(15))
                assert all(np.array_equal(event.body, bodies[event.round]) for event in received)
                assert not node.seen(Lost)
                assert len(node.seen(Connected)) == 1
            assert 30 // every // 2 - 1 <= north.egress.kinds().count("hello") <= 30 // every + 1

    asyncio.run(scenario())


def test_frames_of_each_session_carry_its_id_and_counters_begin_anew() -> None:
    seen: list[FrameHeader] = []

    def look(frames: Frames) -> list[Frames]:
        seen.append(FrameHeader.decode(frames[0]))
        return [frames]

    async def scenario() -> None:
        north, south = make_nodes("north", "south", renew_keys_every=2)
        async with Relay(south.bulk) as relay:
            relay.forth = lambda: FrameChanger(look)
            redirect(north, "south", bulk=relay.endpoint)
            async with running(north, south):
                await north.until(Connected)
                for number in range(6):
                    north.send("south", number, make_body(5))
                    await north.until(Delivered, round=number)
                    await asyncio.sleep(0.05)
        assert len({header.session for header in seen}) == 3
        assert [header.counter for header in seen] == [0, 1, 2, 3] * 3

    asyncio.run(scenario())


def test_a_refusal_at_a_renewal_ends_the_session() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", renew_keys_every=1)
        async with running(north, south):
            await north.until(Connected)
            south.gate.federation = "the next revision"
            north.send("south", 1, make_body(5))
            assert "another federation" in (await north.until(Lost)).reason
            await eventually(lambda: south.transport.links()["north"].state == "refused", "south refuses")

    asyncio.run(scenario())


def test_the_newest_body_replaces_one_that_waits() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=5000)
        async with running(north, south):
            await north.until(Connected)
            for number in range(10):
                north.send("south", number, make_body(5000, number))
            received = await south.until(BodyReceived, round=9)
            assert np.array_equal(received.body, make_body(5000, 9))
            await asyncio.sleep(0.1)
            assert [event.round for event in south.seen(BodyReceived)] == [9]
            north.send("south", 10, make_body(5000))
            await asyncio.sleep(0)
            await asyncio.sleep(0)  # the tenth is under way now
            north.send("south", 11, make_body(5000))
            north.send("south", 12, make_body(5000))
            await south.until(BodyReceived, round=12)
            assert [event.round for event in south.seen(BodyReceived)] == [9, 10, 12]

    asyncio.run(scenario())


def test_a_receiver_that_takes_nothing_holds_two_bodies_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.outgoing.SEALED_CHUNK_BYTES", 1000)

    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=5000)
        async with running(north, south):
            await south.until(Connected)
            south.reading.cancel()  # the node takes no events any more
            for number in range(10):
                north.send("south", number, make_body(5000))
                await asyncio.sleep(0.05)
            assert len(north.seen(Delivered)) == 1
            assert south.transport.links()["north"].received_bytes < 2 * 20_000 + 5000
            south.reading = asyncio.create_task(south._read())
            await south.until(BodyReceived, round=9)
            assert len(south.seen(BodyReceived)) == 3
            assert not north.seen(Lost)

    asyncio.run(scenario())


@pytest.mark.parametrize("leaver", ["north", "south"])
def test_goodbye_comes_after_what_was_queued_and_the_other_finds_the_node_again(leaver: str) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=300_000)
        leaves, stays = (north, south) if leaver == "north" else (south, north)
        async with running(stays):
            await leaves.start()
            await leaves.until(Connected)
            leaves.send(stays.name, 5, make_body(300_000))
            began = time.monotonic()
            await leaves.transport.goodbye(5, True)
            await leaves.stop()
            assert time.monotonic() - began < 2
            assert await stays.until(Left) == Left(leaves.name, 5, True)
            assert [event.round for event in stays.seen(BodyReceived)] == [5]
            await asyncio.sleep(0.3)
            assert not stays.seen(Lost)
            assert stays.transport.links()[leaves.name].state == "left"
            async with running(leaves):
                await stays.until(Connected, 2)

    asyncio.run(scenario())


@pytest.mark.parametrize(("default", "given"), [(0.3, None), (60.0, 0.3)])
def test_goodbye_does_not_wait_for_ever(default: float, given: float | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.common.GOODBYE_TIMEOUT", default)

    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=5000)
        async with Relay(south.bulk) as relay:
            redirect(north, "south", bulk=relay.endpoint)
            async with running(north, south):
                await north.until(Connected)
                relay.stuck = True
                north.send("south", 1, make_body(5000))
                began = time.monotonic()
                await north.transport.goodbye(0, False, timeout=given)
                assert 0.25 < time.monotonic() - began < 1
                await south.until(Left, last_round=0, finished=False)

    asyncio.run(scenario())


def test_a_node_that_leaves_greets_nobody_any_more() -> None:
    async def scenario() -> None:
        east, north, south = make_nodes("east", "north", "south")
        async with running(north, south):
            await south.until(Connected, name="north")
            await south.transport.goodbye(2, False)
            async with running(east):
                status = east.transport.links()["south"]
                await eventually(lambda: "south is leaving" in status.reason, "east is told")
            assert len(south.seen(Connected)) == 1

    asyncio.run(scenario())


def test_neighbours_can_be_added_and_removed_while_bodies_flow() -> None:
    async def scenario() -> None:
        east, north, south = make_nodes("east", "north", "south")
        everyone = {node.name: node.peers for node in (east, north, south)}
        for node in (north, south):
            node.peers = [peer for peer in node.peers if peer.name != "east"]
        async with running(north, south, east):
            await north.until(Connected, name="south")
            for node in (north, south):
                node.transport.update_peers(everyone[node.name])
            await north.until(Connected, name="east")
            await south.until(Connected, name="east")
            assert len(north.seen(Connected, name="south")) == 1
            north.transport.send("east", outgoing(1, make_body(5)))
            await east.until(BodyReceived, name="north")
            north.transport.update_peers([peer for peer in everyone["north"] if peer.name != "east"])
            await north.until(Lost, name="east")
            assert list(north.transport.links()) == ["south"]
            north.send("south", 2, make_body(5))
            await south.until(BodyReceived, name="north")
            await east.until(Lost, name="north")

    asyncio.run(scenario())
