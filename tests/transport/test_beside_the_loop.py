"""Ciphers and disks at work do not keep a node from anything else, and what comes of it is as if they had."""

import asyncio
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from network_tools import Node, eventually, make_body, make_nodes, running, strangers

from flop_p2p.errors import EgressError
from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Lost, Progress
from flop_p2p.transport.beside import SHORT
from flop_p2p.transport.memory import MemoryNetwork, MemoryRoute
from flop_p2p.transport.outgoing import WINDOW
from flop_p2p.wire import Opener, Sealer, open_envelope

LONG = SHORT // 4  # numbers of a body that is not handled on the event loop


class Slow:
    """Work that waits in its thread until it may go on."""

    def __init__(self, work: Callable[..., Any]) -> None:
        self.work, self.may_go_on, self.waiting = work, threading.Event(), 0

    def __call__(self, *arguments: Any) -> Any:
        self.waiting += 1
        assert self.may_go_on.wait(20)
        return self.work(*arguments)


async def count_signs(node: Node, seconds: float) -> int:
    before = len(node.seen(Progress))
    await asyncio.sleep(seconds)
    return len(node.seen(Progress)) - before


@pytest.mark.parametrize(("cipher", "method", "busy"), [(Sealer, "seal", "north"), (Opener, "open", "south")])
def test_a_node_lives_while_a_chunk_is_sealed_or_opened(
    cipher: type, method: str, busy: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = getattr(cipher, method)
    slow = Slow(work)

    def held_up(self: Any, *arguments: Any) -> Any:
        is_chunk = arguments[-2].nbytes >= SHORT  # what is sealed, or opened
        return slow(self, *arguments) if is_chunk else work(self, *arguments)

    monkeypatch.setattr(cipher, method, held_up)

    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=LONG)
        async with running(north, south):
            await north.until(Connected)
            north.send("south", 1, make_body(LONG))
            await eventually(lambda: slow.waiting == 1, f"{busy} is busy")
            try:
                assert min(await asyncio.gather(count_signs(north, 0.9), count_signs(south, 0.9))) >= 3
            finally:
                slow.may_go_on.set()
            await north.until(Delivered, round=1)
            assert not [*north.seen(Lost), *south.seen(Lost)]

    asyncio.run(scenario())


def test_a_slow_disk_holds_up_a_body_and_not_the_signs_of_life() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        slow = Slow(north.egress.sync)
        async with running(north, south):
            await north.until(Connected)
            north.egress.sync = slow  # type: ignore[method-assign]
            north.send("south", 1, make_body(5))
            await eventually(lambda: slow.waiting == 1, "north waits for its disk")
            try:
                assert await count_signs(south, 0.5) >= 2
                assert not south.seen(BodyReceived)
            finally:
                slow.may_go_on.set()
            await south.until(BodyReceived, round=1)

    asyncio.run(scenario())


def test_bodies_and_receipts_leave_once_their_lines_are_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    north, south = make_nodes("north", "south")
    north.network = south.network = MemoryNetwork()
    egress = {node.name: node.egress for node in (north, south)}
    seen: list[bool] = []
    send = MemoryRoute.send

    def checked(route: MemoryRoute, parts: Sequence[Any]) -> None:
        log = egress[route.sender]
        if len(parts) == 2:
            seen.append("body" not in log.kinds()[log.synced :])
        else:
            message, chain = open_envelope(parts[0])
            if message.kind == "receipt":
                seen.append(log.chains.index(chain) < log.synced)
        send(route, parts)

    monkeypatch.setattr(MemoryRoute, "send", checked)

    async def scenario() -> None:
        async with running(north, south):
            await north.until(Connected)
            for number in range(5):
                north.send("south", number, make_body(5))
                await north.until(Delivered, round=number)

    asyncio.run(scenario())
    assert seen == [True] * 15  # descriptor, chunk and receipt of five bodies


def test_a_disk_that_is_lost_ends_all_sending_and_the_node_is_told() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            await north.until(Connected)
            north.egress.stuck = True
            north.send("south", 1, make_body(5))
            await eventually(lambda: isinstance(north.error, EgressError), "next_event raises")
            await asyncio.sleep(0.1)
            assert not south.seen(BodyReceived)

    asyncio.run(scenario())


def test_the_bodies_of_a_round_wait_for_the_disk_together() -> None:
    async def scenario() -> None:
        nodes = north, south, west = make_nodes("north", "south", "west")
        strangers(south, west)
        syncs = 0
        sync = north.egress.sync

        def counted() -> bytes:
            nonlocal syncs
            syncs += 1
            return sync()

        async with running(*nodes):
            await north.until(Connected, name="south")
            await north.until(Connected, name="west")
            north.egress.sync = counted  # type: ignore[method-assign]
            for name in ("south", "west"):
                north.send(name, 1, make_body(5))
            await south.until(BodyReceived)
            await west.until(BodyReceived)
            assert syncs == 1

    asyncio.run(scenario())


def test_the_next_body_takes_the_memory_of_one_that_was_freed_and_of_no_other() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=1000)
        async with running(north, south):
            await north.until(Connected)
            for number in range(4):
                north.send("south", number, make_body(1000, number))
                received = await south.until(BodyReceived, round=number)
                if number == 1:
                    south.transport.free(received.body)
            kept, freed, third, fourth = (event.body for event in south.seen(BodyReceived))
            assert np.shares_memory(freed, third)
            assert not any(np.shares_memory(third, other) for other in (kept, fourth))
            for number, body in ((0, kept), (2, third), (3, fourth)):
                assert np.array_equal(body, make_body(1000, number))

    asyncio.run(scenario())


def test_as_many_bodies_are_kept_for_reuse_as_there_are_neighbours() -> None:
    async def scenario() -> None:
        north, _ = make_nodes("north", "south")
        async with running(north):
            for seed in range(3):
                north.transport.free(make_body(5, seed))
            assert len(north.transport._hub.spare) == 1

    asyncio.run(scenario())


def test_frames_beyond_the_window_are_dropped_and_counted() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            await south.until(Connected)
            link = south.transport._links["north"]
            for _ in range(WINDOW + 3):  # in one step of the event loop: none is opened in between
                link.frame(b"junk", memoryview(b"junk"))
            assert link.status.dropped_frames == 3
            await eventually(lambda: link.status.dropped_frames == WINDOW + 3, "the others are opened in vain")
            assert not south.seen(Lost)

    asyncio.run(scenario())


def test_what_an_ended_connection_was_doing_does_not_end_the_next_one() -> None:
    """A sign of life finds the connection gone, and the neighbour is there again before the task that sent it ends."""

    async def scenario() -> None:
        north, south = make_nodes("north", "south", heartbeat=0.1, lost_after=0.3)
        network = north.network = south.network = MemoryNetwork()
        async with running(north, south):
            await south.until(Connected)
            network._cut.add(frozenset(("north", "south")))  # nobody is told
            await south.until(Lost)
            await north.until(Lost)
            network.mend("north", "south")
            await south.until(Connected, 2)
            await asyncio.sleep(0.8)
            assert len(south.seen(Lost)) == 1
            assert len(south.transport._hub._tasks) == 3  # sends, receives, and tells that it lives

    asyncio.run(scenario())
