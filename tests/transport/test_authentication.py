"""Only members' keys get past the handshake, and only as themselves."""

import asyncio
import os
from dataclasses import replace

import numpy as np
import pytest
import zmq
import zmq.asyncio
from network_tools import Node, eventually, make_body, make_nodes, peer_of, running, strangers

from flop_p2p.transport.authentication import MemberAuthenticator
from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Lost, TransportKeys
from flop_p2p.transport.link import Link
from flop_p2p.transport.monitor import Monitor
from flop_p2p.transport.routes import LinkError
from flop_p2p.transport.sockets import bind, bulk_client, curve_client, curve_server


def refusals(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if text in record.getMessage()]


def test_an_unknown_key_never_gets_past_the_handshake_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        (stranger,) = make_nodes("east")
        async with running(north, south):
            await north.until(Connected)
            for _ in range(3):
                context = zmq.asyncio.Context()
                dealer = curve_client(context, stranger.keys, south.keys.public.decode())
                monitor = Monitor(dealer)
                dealer.connect(south.control)
                with pytest.raises(LinkError, match="does not accept our key"):
                    await monitor.connected(south.control)
                monitor.close()
                dealer.close(0)
                context.term()
            south.send("north", 1, make_body(5))
            await north.until(BodyReceived)
        assert [receipt[0] for receipt in south.egress.receipts] == ["north"] * len(south.egress.receipts)
        assert len(refusals(caplog, stranger.keys.public.decode())) == 1

    asyncio.run(scenario())


def test_a_node_whose_key_is_not_in_the_others_file_learns_it_and_keeps_trying() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        south.peers = [replace(south.peers[0], curve_keys=(zmq.curve_keypair()[0].decode(),))]
        async with running(north, south):
            await eventually(lambda: north.transport.links()["south"].state == "refused", "north is refused")
            assert "does not accept our key" in north.transport.links()["south"].reason
        assert not north.seen(Connected)
        assert not south.seen(Connected)

    asyncio.run(scenario())


def test_a_server_with_another_key_is_not_spoken_to() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        north.peers = [replace(north.peers[0], curve_keys=(zmq.curve_keypair()[0].decode(),))]
        async with running(north, south):
            await eventually(lambda: "expected key" in north.transport.links()["south"].reason, "north sees the key")
        assert north.egress.lines == []

    asyncio.run(scenario())


def test_during_a_rotation_the_second_key_of_a_peer_is_tried_too() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        other = zmq.curve_keypair()[0].decode()
        north.peers = [replace(north.peers[0], curve_keys=(other, south.keys.public.decode()))]
        south.peers = [replace(south.peers[0], curve_keys=(other, north.keys.public.decode()))]
        async with running(north, south):
            await north.until(Connected)
            await south.until(Connected)

    asyncio.run(scenario())


@pytest.mark.parametrize("liar", ["north", "south"])
def test_a_member_that_claims_anothers_name_is_refused_and_logged_once(
    liar: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def scenario() -> None:
        nodes = make_nodes("east", "north", "south")
        by_name = {node.name: node for node in nodes}
        by_name[liar].gate.changes["name"] = "west"
        honest = by_name["south" if liar == "north" else "north"]
        strangers(by_name["east"], by_name[liar])
        async with running(*nodes):
            await honest.until(Connected, name="east")
            links = honest.transport.links()
            await eventually(lambda: links[liar].state == "refused", "the liar is refused")
            assert "says west" in links[liar].reason
            liars_view = by_name[liar].transport.links()[honest.name]
            await eventually(lambda: "says west" in liars_view.reason, "the liar is told why")
            honest.send("east", 1, make_body(5))
            await by_name["east"].until(BodyReceived, name=honest.name)
            hellos = by_name["north"].egress.kinds
            await eventually(lambda: hellos("south").count("hello") > 2, "it tries again and again")
        assert not honest.seen(Connected, name=liar)
        assert len(refusals(caplog, f"{liar}: the key is that of {liar}, but the greeting says west")) == 1

    asyncio.run(scenario())


def test_without_the_authenticator_nobody_is_accepted() -> None:
    async def attempt(context: zmq.asyncio.Context, start: bool) -> bool:
        server_keys, client_keys = TransportKeys(*zmq.curve_keypair()), TransportKeys(*zmq.curve_keypair())
        node = Node("south", server_keys, 5, make_nodes("south")[0].gossip)
        client = Node("north", client_keys, 5, node.gossip)
        server = curve_server(context, server_keys)
        authenticator = None
        if start:
            links = {"north": Link(client.make()._hub, peer_of(client, dials=False))}
            authenticator = MemberAuthenticator(context, links)
            authenticator.start()
            serving = asyncio.create_task(authenticator.serve())
        bind(server, node.control)
        dealer = curve_client(context, client_keys, server_keys.public.decode())
        monitor = Monitor(dealer)
        dealer.connect(node.control)
        try:
            async with asyncio.timeout(0.5):
                await monitor.connected(node.control)
                dealer.send(b"hello")
                await server.recv_multipart()
                return True
        except (LinkError, TimeoutError):
            return False
        finally:
            monitor.close()
            dealer.close(0)
            server.close(0)
            if authenticator is not None:
                serving.cancel()
                await asyncio.gather(serving, return_exceptions=True)
                authenticator.stop()

    async def scenario() -> None:
        for start in (True, False):
            context = zmq.asyncio.Context()
            assert await attempt(context, start) is start
            context.term()

    asyncio.run(scenario())


def test_a_key_that_was_removed_loses_its_rights_on_the_connection_that_it_has() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(north, south):
            await south.until(Connected)
            south.transport.update_peers([replace(south.peers[0], curve_keys=(zmq.curve_keypair()[0].decode(),))])
            seen = len(south.events)
            north.send("south", 1, make_body(5))
            await eventually(lambda: north.transport.links()["south"].state != "connected", "north is cut off")
            assert all(not isinstance(event, BodyReceived | Connected) for event in south.events[seen:])

    asyncio.run(scenario())


def test_a_further_key_costs_no_connection() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        other = zmq.curve_keypair()[0].decode()
        async with running(north, south):
            await south.until(Connected)
            for node in (north, south):
                (peer,) = node.peers
                node.transport.update_peers([replace(peer, curve_keys=(*peer.curve_keys, other))])
            north.send("south", 1, make_body(5))
            await north.until(Delivered)
            assert not north.seen(Lost)
            assert not south.seen(Lost)
            assert len(north.seen(Connected)) == 1
        assert north.egress.kinds().count("hello") == 1

    asyncio.run(scenario())


def test_strangers_cannot_take_all_room_at_the_bulk_port(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flop_p2p.transport.authentication.MAX_BULK", 5)

    async def join(dealer: zmq.asyncio.Socket, node: Node) -> bool:
        monitor = Monitor(dealer)
        dealer.connect(node.bulk.replace("tcp://", "tcp://127.0.0.2:0;"))  # from another address than the member
        try:
            await monitor.connected("there")
            return True
        except LinkError:
            return False
        finally:
            monitor.close()

    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south):
            context = zmq.asyncio.Context()
            dealers = [bulk_client(context, b"1" + os.urandom(15)) for _ in range(8)]
            joined = []
            for dealer in dealers:
                joined.append(await join(dealer, south))
                await asyncio.sleep(0.02)  # until the connection is counted
            async with running(north):
                await north.until(Connected)
                north.send("south", 1, make_body(5))
                await north.until(Delivered)
            for dealer in dealers:
                dealer.close(0)
            context.term()
        assert joined == [True] * 5 + [False] * 3

    asyncio.run(scenario())


def test_a_body_does_not_change_hands_between_members() -> None:
    async def scenario() -> None:
        nodes = make_nodes("east", "north", "south", parameters=100)
        async with running(*nodes):
            for node in nodes:
                for other in nodes:
                    if other is not node:
                        await node.until(Connected, name=other.name)
            bodies = {node.name: make_body(100, seed) for seed, node in enumerate(nodes)}
            for node in nodes:
                for other in nodes:
                    if other is not node:
                        node.send(other.name, 1, bodies[node.name])
            for node in nodes:
                for other in nodes:
                    if other is not node:
                        received = await node.until(BodyReceived, name=other.name)
                        assert np.array_equal(received.body, bodies[other.name])

    asyncio.run(scenario())


def test_a_failure_of_the_authenticator_reaches_the_node(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> bool:
        raise OSError("out of something")

    monkeypatch.setattr(MemberAuthenticator, "callback", broken)

    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        async with running(south):
            south.reading.cancel()
            context = zmq.asyncio.Context()
            dealer = curve_client(context, north.keys, south.keys.public.decode())
            dealer.connect(south.control)
            with pytest.raises(OSError, match="out of something"):
                async with asyncio.timeout(2):
                    await south.transport.next_event()
            dealer.close(0)
            context.term()

    asyncio.run(scenario())
