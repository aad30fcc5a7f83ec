"""Nothing leaves without its line in the egress log, and the line's hash travels with it."""

import asyncio
import hashlib

import pytest
from network_tools import eventually, make_body, make_nodes, running

from flop_p2p.errors import EgressError
from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Progress


@pytest.mark.parametrize("bulk", ["sealed", "curve"])
def test_every_message_has_a_line_and_what_arrives_leaves_a_receipt(bulk: str) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=100, bulk=bulk)
        body = make_body(100)
        async with running(north, south):
            await south.until(Progress)
            for number in (4, 5):  # two frames each, and half a window is credited at a time
                north.send("south", number, body)
                await north.until(Delivered, round=number)
        assert {"hello", "ready", "heartbeat"} <= set(north.egress.kinds())
        assert {"welcome", "credit", "receipt"} <= set(south.egress.kinds())
        line = ("south", "body", 4, 400, hashlib.sha256(body.tobytes()).digest())
        assert north.egress.lines.count(line) == 1
        chain = north.egress.chains[north.egress.lines.index(line)]
        assert ("north", "body", 4, chain) in south.egress.receipts
        sent = {chain: line[1] for chain, line in zip(north.egress.chains, north.egress.lines, strict=True)}
        assert all(sent[chain] == kind for _, kind, _, chain in south.egress.receipts)
        assert {kind for _, kind, _, _ in south.egress.receipts} == {"hello", "ready", "body"}
        assert {kind for _, kind, _, _ in north.egress.receipts} == {"welcome", "receipt"}

    asyncio.run(scenario())


def test_when_the_log_fails_nothing_leaves_any_more_and_the_node_is_told() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=1000)
        async with running(north, south):
            await north.until(Connected)
            await south.until(Progress)
            north.egress.broken = True
            before = north.transport.links()["south"].sent_bytes
            north.send("south", 1, make_body(1000))
            await eventually(lambda: isinstance(north.error, EgressError), "next_event raises")
            north.egress.broken = False
            north.send("south", 2, make_body(1000))
            with pytest.raises(EgressError):
                await north.transport.next_event()
            with pytest.raises(EgressError):
                await north.transport.goodbye(1, False)
            await asyncio.sleep(0.3)
            assert north.transport.links()["south"].sent_bytes == before
        assert not south.seen(BodyReceived)

    asyncio.run(scenario())


def test_with_a_broken_log_not_even_a_greeting_leaves() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        north.egress.broken = True
        async with running(north, south):
            await eventually(lambda: isinstance(north.error, EgressError), "next_event raises")
            assert north.transport.links()["south"].sent_bytes == 0
        assert south.egress.receipts == []

    asyncio.run(scenario())


def test_when_receipts_cannot_be_kept_the_node_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")

        def broken(*_: object) -> None:
            raise EgressError("the disk is full")

        monkeypatch.setattr(south.egress, "receipt", broken)
        async with running(north, south):
            await eventually(lambda: isinstance(south.error, EgressError), "next_event raises")

    asyncio.run(scenario())
