"""Neighbours that vanish are noticed, and found again when they come back."""

import asyncio
import time

import pytest
from network_relay import Relay
from network_tools import eventually, make_body, make_nodes, redirect, running

from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Lost, Progress


@pytest.mark.parametrize("restarted", ["north", "south"])
@pytest.mark.parametrize("bulk", ["sealed", "curve"])
def test_a_restart_is_noticed_at_once_and_both_connect_again(restarted: str, bulk: str) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", bulk=bulk, heartbeat=5.0, lost_after=20.0)
        gone, stays = (north, south) if restarted == "north" else (south, north)
        async with running(north, south):
            await north.until(Connected)
            await south.until(Connected)
            await gone.stop()
            await stays.until(Lost, name=gone.name)
            assert stays.transport.links()[gone.name].state == "lost"
            await gone.start()
            await stays.until(Connected, 2)
            await gone.until(Connected, 2)
            stays.send(gone.name, 1, make_body(5))
            gone.send(stays.name, 1, make_body(5))
            await gone.until(BodyReceived)
            await stays.until(BodyReceived)

    asyncio.run(scenario())


def test_when_signs_of_life_stop_both_lose_each_other_in_time_and_connect_again_when_they_go_on() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", heartbeat=0.1, lost_after=0.5)
        async with Relay(south.control) as relay:
            redirect(north, "south", control=relay.endpoint)
            async with running(north, south):
                await north.until(Connected)
                await south.until(Connected)
                await north.until(Progress)
                relay.stuck = True
                began = time.monotonic()
                await north.until(Lost)
                await south.until(Lost)
                assert 0.3 < time.monotonic() - began < 1.2
                relay.stuck = False
                await north.until(Connected, 2)
                await south.until(Connected, 2)
                north.send("south", 1, make_body(5))
                south.send("north", 1, make_body(5))
                await north.until(Delivered)
                await south.until(Delivered)

    asyncio.run(scenario())


def test_a_side_that_still_hears_is_told_that_the_other_has_lost_it() -> None:
    """Nothing reaches the listening side any more, but its own words arrive: greeted again once the way is free."""

    async def scenario() -> None:
        north, south = make_nodes("north", "south", heartbeat=0.1, lost_after=0.4)
        async with Relay(south.control) as relay:
            redirect(north, "south", control=relay.endpoint)
            async with running(north, south):
                await south.until(Connected)
                relay.stuck_forth = True
                await south.until(Lost)
                relay.stuck_forth = False
                await south.until(Connected, 2)
                await north.until(Connected, 2)
                assert relay.connections == 1
                north.send("south", 1, make_body(5))
                await north.until(Delivered)

    asyncio.run(scenario())


@pytest.mark.parametrize("channel", ["control", "bulk"])
def test_either_channel_cut_means_lost_and_both_are_made_anew(channel: str) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with Relay(south.control if channel == "control" else south.bulk) as relay:
            redirect(north, "south", **{channel: relay.endpoint})
            async with running(north, south):
                await north.until(Connected)
                relay.cut()
                await north.until(Lost)
                await north.until(Connected, 2)
                await south.until(Connected, 2)  # the new connection may come before the old one is missed
                north.send("south", 1, make_body(5))
                await south.until(BodyReceived)

    asyncio.run(scenario())


def test_a_bulk_channel_that_does_not_move_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.outgoing.TRANSFER_TIMEOUT", 0.4)
    monkeypatch.setattr("flop_p2p.transport.outgoing.SEALED_CHUNK_BYTES", 1000)

    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=5000)
        async with Relay(south.bulk) as relay:
            redirect(north, "south", bulk=relay.endpoint)
            async with running(north, south):
                await north.until(Connected)
                relay.stuck = True
                north.send("south", 1, make_body(5000))
                lost = await north.until(Lost)
                assert "took no part of a body" in lost.reason
                relay.stuck = False
                await north.until(Connected, 2)
                north.send("south", 1, make_body(5000))
                await north.until(Delivered)

    asyncio.run(scenario())


def test_a_bulk_port_that_nobody_listens_at_is_named() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        redirect(north, "south", bulk=make_nodes("east")[0].bulk)
        async with running(north, south):
            status = north.transport.links()["south"]
            await eventually(lambda: f"nobody listens at {north.peers[0].bulk}" in status.reason, "north says why")
        assert not south.seen(Connected)

    asyncio.run(scenario())


def test_a_node_that_starts_first_finds_the_other_when_it_comes(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north):
            status = north.transport.links()["south"]
            await eventually(lambda: "nobody listens" in status.reason, "north tries")
            assert status.state == "connecting"
            await asyncio.sleep(0.4)
            async with running(south):
                await north.until(Connected)
                await south.until(Connected)
                assert (status.state, status.reason) == ("connected", "")
        assert len([record for record in caplog.records if "nobody listens" in record.getMessage()]) == 1

    asyncio.run(scenario())


def test_a_body_for_a_neighbour_that_is_not_connected_is_ignored() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north):
            north.send("south", 1, make_body(5))
            north.send("nobody", 1, make_body(5))
            async with running(south):
                await north.until(Connected)
                north.send("south", 2, make_body(5))
                await south.until(BodyReceived, round=2)
        assert len(south.seen(BodyReceived)) == 1

    asyncio.run(scenario())


def test_links_show_contact_latency_skew_and_bytes() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=1000)
        south.gate.changes["time"] = time.time() + 100
        async with running(north, south):
            await north.until(Connected)
            north.transport.set_round(7)
            await south.until(Progress, round=7)
            north.send("south", 7, make_body(1000))
            await north.until(Delivered)
            status = north.transport.links()["south"]
            await eventually(lambda: status.latency is not None, "a heartbeat came back")
            assert 0 <= (status.latency or 0) < 1
            assert 95 < (status.clock_skew or 0) < 101
            assert status.sent_bytes > 4000
            assert south.transport.links()["north"].received_bytes > 4000
            assert time.time() - (status.last_contact or 0) < 2
            assert status.dropped_frames == 0

    asyncio.run(scenario())
