"""A neighbour that asks too much gets few answers, as each costs a line of the egress log."""

import asyncio
import time
from collections.abc import Callable, Sequence

import pytest
from network_tools import Node, RawMember, eventually, make_body, make_nodes, running

from flop_p2p.config.gossip import GossipSettings
from flop_p2p.transport.acceptor import Acceptor
from flop_p2p.transport.base import Connected, Delivered, LinkStatus, Lost, Progress
from flop_p2p.transport.hub import Hub
from flop_p2p.transport.link import ANSWER_BURST, LINE_BURST, Link
from flop_p2p.transport.memory import MemoryNetwork
from flop_p2p.transport.routes import Route
from flop_p2p.transport.sockets import split_endpoint
from flop_p2p.transport.throttle import Throttle
from flop_p2p.wire import AnyMessage, Heartbeat, Ready

SELDOM = GossipSettings(heartbeat=30.0, lost_after=90.0)
MANY = 100


def answers(node: Node) -> int:
    return len([kind for kind in node.egress.kinds() if kind in ("refuse", "unknown")])


@pytest.mark.parametrize(
    "make",
    [
        lambda raw: Heartbeat(round=0, sent=1.0, echo=0.0),
        lambda raw: Ready(session=b"12345678"),
        lambda raw: raw.hello(federation="another"),
        lambda raw: raw.hello(public_key=bytes(32)),
    ],
    ids=["heartbeat", "ready", "refused", "bad key"],
)
def test_refusals_and_unknowns_are_few(
    make: Callable[[RawMember], AnyMessage], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken: list[object] = []
    take = Acceptor.take

    def counted(acceptor: Acceptor, link: Link, route: Route, parts: Sequence[memoryview]) -> None:
        take(acceptor, link, route, parts)
        taken.append(parts)

    monkeypatch.setattr(Acceptor, "take", counted)

    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            for _ in range(MANY):
                await raw.send(make(raw))
            await eventually(lambda: len(taken) == MANY, "all are taken")
            assert ANSWER_BURST - 1 <= answers(south) <= ANSWER_BURST + 3

    asyncio.run(scenario())


def test_malformed_messages_without_a_session_get_few_refusals() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            for _ in range(MANY):
                await raw.dealer.send(b"rubbish")
            status = south.transport.links()["north"]
            await eventually(lambda: status.dropped_frames == MANY, "all are counted")
            assert answers(south) <= ANSWER_BURST + 3

    asyncio.run(scenario())


def test_heartbeats_are_answered_seldom_but_all_are_heard() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", gossip=SELDOM)
        async with running(south), RawMember(north, south) as raw:
            await raw.send(raw.hello())
            await raw.receive()
            await raw.send(Ready(session=b"12345678"))
            await south.until(Connected)
            for number in range(MANY):
                await raw.send(Heartbeat(round=number, sent=1.0, echo=0.0))
            await south.until(Progress, round=MANY - 1)
            assert south.egress.kinds().count("heartbeat") == 2  # its own first one, and one answer

    asyncio.run(scenario())


def test_what_is_too_much_is_not_even_parsed_or_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.link.Throttle", lambda *_: Throttle(0.0, 5.0))
    parsed: list[object] = []
    read = Hub.read

    def counted(hub: Hub, sender: str, parts: Sequence[memoryview], status: LinkStatus) -> AnyMessage:
        parsed.append(parts)
        return read(hub, sender, parts, status)

    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        monkeypatch.setattr(Hub, "read", counted)
        async with running(south), RawMember(north, south) as raw:
            for _ in range(MANY):
                await raw.dealer.send(b"rubbish")
            status = south.transport.links()["north"]
            await eventually(lambda: status.dropped_frames == MANY, "all are counted")
            assert len(parsed) == 5
            assert answers(south) == 5

    asyncio.run(scenario())


def test_credits_do_not_use_up_what_a_neighbour_may_send(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.outgoing.SEALED_CHUNK_BYTES", 1000)
    monkeypatch.setattr("flop_p2p.transport.link.Throttle", lambda *_: Throttle(0.0, 30.0))

    async def scenario() -> None:
        north, south = make_nodes("north", "south", parameters=50_000, gossip=SELDOM)
        async with running(north, south):
            await north.until(Connected)
            for number in range(3):
                north.send("south", number, make_body(50_000))
                await north.until(Delivered, round=number)
            assert south.egress.kinds().count("credit") > 140

    asyncio.run(scenario())


def test_a_neighbour_that_comes_and_goes_does_not_fill_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        network = MemoryNetwork()
        north, south = make_nodes("north", "south", gossip=SELDOM)
        north.network = south.network = network
        async with running(north, south):
            for number in range(40):
                await south.until(Connected, number + 1)
                network.cut("north", "south")
                network.mend("north", "south")
            await south.until(Lost, 40)

    asyncio.run(scenario())
    lines = [record for record in caplog.records if record.getMessage().startswith("north: lost")]
    assert LINE_BURST <= len(lines) <= LINE_BURST + 2


def test_strangers_that_come_and_go_cause_one_sign_of_life_a_second() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south", gossip=SELDOM)
        async with running(north, south):
            await south.until(Connected)
            give_up = time.monotonic() + 1.5
            while time.monotonic() < give_up:
                _, writer = await asyncio.open_connection(*split_endpoint(south.control))
                writer.close()
                await asyncio.sleep(0.02)
            assert 2 <= south.egress.kinds().count("heartbeat") <= 4  # the first, one answer, and two more

    asyncio.run(scenario())
