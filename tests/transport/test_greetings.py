"""Greetings that are not accepted: both sides know why, it is logged once, and everyone else goes on."""

import asyncio
from collections.abc import Callable

import msgpack
import pytest
from network_tools import Node, RawMember, eventually, make_body, make_nodes, running, strangers

from flop_p2p.config.federation import PROTOCOL_VERSION
from flop_p2p.transport.acceptor import Acceptor, Pending
from flop_p2p.transport.base import BodyReceived, Connected, Lost
from flop_p2p.transport.link import Link
from flop_p2p.wire import Heartbeat, Ready, Refuse, Unknown, Welcome

STALE = PROTOCOL_VERSION + 1


def another_federation(north: Node, south: Node) -> None:
    north.gate.federation = "other"


def only_the_dialler_objects(north: Node, south: Node) -> None:
    north.gate.federation, south.gate.accepts_all = "other", True


def stale_dialler(north: Node, south: Node) -> None:
    north.gate.changes["protocol"] = STALE


def stale_listener(north: Node, south: Node) -> None:
    south.gate.changes["protocol"] = STALE


@pytest.mark.parametrize(
    ("change", "honest", "at_north", "at_south"),
    [
        (
            another_federation,
            "south",
            "refuses this node: another federation: other",
            "another federation: other",
        ),
        (only_the_dialler_objects, "south", "another federation: one", "refuses this node: another federation: one"),
        (stale_dialler, "south", f"refuses this node: north speaks version {STALE}", f"north speaks version {STALE}"),
        (stale_listener, "north", f"south speaks version {STALE}", f"refuses this node: south speaks version {STALE}"),
    ],
)
def test_both_sides_know_the_reason_log_it_once_and_others_go_on(
    change: Callable[[Node, Node], None], honest: str, at_north: str, at_south: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        east, north, south = make_nodes("east", "north", "south")
        change(north, south)
        strangers(east, north if honest == "south" else south)
        third = north if honest == "north" else south
        async with running(east, north, south):
            links = {node.name: node.transport.links() for node in (north, south)}
            await eventually(lambda: at_north in links["north"]["south"].reason, "north knows why")
            await eventually(lambda: at_south in links["south"]["north"].reason, "south knows why")
            assert links["north"]["south"].state == links["south"]["north"].state == "refused"
            await eventually(lambda: north.egress.kinds("south").count("hello") > 2, "north tries again and again")
            await third.until(Connected, name="east")
            third.send("east", 1, make_body(5))
            await east.until(BodyReceived, name=honest)
        assert not north.seen(Connected, name="south")
        assert not south.seen(Connected, name="north")
        assert "body" not in north.egress.kinds("south") + south.egress.kinds("north")
        messages = [record.getMessage() for record in caplog.records]
        assert len([message for message in messages if message.startswith(f"south: {at_north}")]) == 1
        assert len([message for message in messages if message.startswith(f"north: {at_south}")]) == 1

    asyncio.run(scenario())


def test_a_message_of_another_version_is_refused_whatever_is_in_it() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            await raw.dealer.send(msgpack.packb([STALE, bytes(32), b"?", "a fourth part that this version has not"]))
            await raw.dealer.send(msgpack.packb([STALE, bytes(32), b"?"]))
            await raw.receive()
            answer = await raw.receive()
            assert isinstance(answer, Refuse)
            assert f"speaks version {STALE}" in answer.reason
            assert f"speaks version {STALE}" in south.transport.links()["north"].reason

    asyncio.run(scenario())


def test_without_a_session_every_message_is_answered_with_unknown() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            for message in (Heartbeat(round=0, sent=1.0, echo=0.0), Ready(session=b"12345678")):
                await raw.send(message)
                assert await raw.receive() == Unknown()
        assert south.events == []

    asyncio.run(scenario())


def test_a_probe_is_welcomed_but_keeps_no_session() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            await raw.send(raw.hello(probe=True))
            assert isinstance(await raw.receive(), Welcome)
            await raw.send(Ready(session=b"12345678"))
            assert await raw.receive() == Unknown()
        assert south.events == []

    asyncio.run(scenario())


@pytest.mark.parametrize("public_key", [bytes(32), b"\x01" + bytes(31)])
def test_a_public_key_of_small_order_is_refused(public_key: bytes) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            await raw.send(raw.hello(public_key=public_key))
            answer = await raw.receive()
            assert isinstance(answer, Refuse)
            assert "not a usable X25519 key" in answer.reason

    asyncio.run(scenario())


def test_a_member_that_is_dialled_may_not_dial_itself() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north), RawMember(south, north) as raw:
            await raw.send(raw.hello())
            answer = await raw.receive()
            assert isinstance(answer, Refuse)
            assert "north dials south" in answer.reason

    asyncio.run(scenario())


def test_the_bulk_id_of_another_member_is_refused() -> None:
    async def scenario() -> None:
        east, north, south = make_nodes("east", "north", "south")
        async with running(south), RawMember(north, south) as first, RawMember(east, south) as second:
            await first.send(first.hello())
            assert isinstance(await first.receive(), Welcome)
            await second.send(second.hello())
            answer = await second.receive()
            assert isinstance(answer, Refuse)
            assert "bulk id" in answer.reason

    asyncio.run(scenario())


def test_a_session_begins_with_ready_and_ends_with_silence() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south), RawMember(north, south) as raw:
            await raw.send(raw.hello())
            assert isinstance(await raw.receive(), Welcome)
            assert not south.seen(Connected)
            await raw.send(Ready(session=b"87654321"))
            await raw.send(Ready(session=b"12345678"))
            await south.until(Connected, name="north")
            assert "sign of life" in (await south.until(Lost, name="north")).reason

    asyncio.run(scenario())


def test_a_neighbour_that_never_answers_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.conversation.GREETING_TIMEOUT", 0.2)
    monkeypatch.setattr("flop_p2p.transport.acceptor.Acceptor.take", lambda *_: None)

    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            status = north.transport.links()["south"]
            await eventually(lambda: "no answer to the greeting" in status.reason, "north gives up")
            await eventually(lambda: north.egress.kinds().count("hello") > 1, "north tries again")

    asyncio.run(scenario())


def test_a_neighbour_that_forgets_every_session_is_greeted_ever_later(monkeypatch: pytest.MonkeyPatch) -> None:
    def forget(acceptor: Acceptor, link: Link, pending: Pending) -> None:
        acceptor._hub.post(link.name, Unknown(), pending.way.control, link.status)

    monkeypatch.setattr("flop_p2p.transport.acceptor.Acceptor._ready", forget)

    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            await asyncio.sleep(1.5)
            assert 2 < north.egress.kinds().count("hello") < 60  # two in each attempt, at most 0.1 s between attempts
            assert "forgotten the session again" in north.transport.links()["south"].reason

    asyncio.run(scenario())
