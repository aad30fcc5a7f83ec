"""Addresses: bound, resolved, and refused with a reason."""

import asyncio
import socket

import pytest
import zmq.asyncio
from network_tools import eventually, make_nodes, redirect, running

from flop_p2p.errors import TransportError
from flop_p2p.transport.base import Connected
from flop_p2p.transport.sockets import bind, bulk_server, resolve, split_endpoint


@pytest.mark.parametrize(
    ("endpoint", "host", "port"),
    [
        ("tcp://10.0.0.1:80", "10.0.0.1", 80),
        ("tcp://north.example:5555", "north.example", 5555),
        ("tcp://[::1]:80", "::1", 80),
        ("tcp://*:80", "*", 80),
        ("proxy:1080", "proxy", 1080),
    ],
)
def test_endpoints_are_split(endpoint: str, host: str, port: int) -> None:
    assert split_endpoint(endpoint) == (host, port)


@pytest.mark.parametrize("endpoint", ["tcp://north", "tcp://:80", "tcp://north:http", "tcp://north:70000", ""])
def test_what_is_no_endpoint_is_refused(endpoint: str) -> None:
    with pytest.raises(TransportError, match="tcp://host:port"):
        split_endpoint(endpoint)


def test_host_names_are_resolved_to_all_their_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [(2, 1, 6, "", ("::1", 80, 0, 0)), (2, 1, 6, "", ("127.0.0.1", 80)), (2, 2, 17, "", ("127.0.0.1", 80))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: found)
    assert asyncio.run(resolve("tcp://north.example:80")) == ["tcp://[::1]:80", "tcp://127.0.0.1:80"]


def test_a_host_name_whose_first_address_nobody_listens_at_is_reached_at_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def addresses(host: str, port: int, *_: object, **__: object) -> list[tuple[object, ...]]:
        hosts = ["127.0.0.2", "127.0.0.1"] if host == "south.example" else ["127.0.0.1"]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in hosts]

    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        redirect(
            north,
            "south",
            control=south.control.replace("127.0.0.1", "south.example"),
            bulk=south.bulk.replace("127.0.0.1", "south.example"),
        )
        async with running(south, north):
            await north.until(Connected)

    monkeypatch.setattr(socket, "getaddrinfo", addresses)
    asyncio.run(scenario())


def test_localhost_can_be_bound_by_its_name() -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        south.control = south.control.replace("127.0.0.1", "localhost")
        south.bulk = south.bulk.replace("127.0.0.1", "*")
        async with running(south, north):
            await south.until(Connected)

    asyncio.run(scenario())


def test_an_address_that_is_taken_or_not_ours_is_named() -> None:
    async def scenario() -> None:
        context = zmq.asyncio.Context()
        first, second = bulk_server(context), bulk_server(context)
        (node,) = make_nodes("north")
        bind(first, node.bulk)
        with pytest.raises(TransportError, match=f"cannot listen at {node.bulk}: Address already in use"):
            bind(second, node.bulk)
        with pytest.raises(TransportError, match=r"cannot listen at tcp://192\.0\.2\.1:99"):
            bind(second, "tcp://192.0.2.1:99")
        with pytest.raises(TransportError, match=r"cannot listen at tcp://no-such-host\.invalid:99"):
            bind(second, "tcp://no-such-host.invalid:99")
        for host in ("a..b", 70 * "a"):
            with pytest.raises(TransportError, match=f"cannot listen at 'tcp://{host}:5000': .* is no host name"):
                bind(second, f"tcp://{host}:5000")
        first.close()
        second.close()
        context.term()

    asyncio.run(scenario())


@pytest.mark.parametrize("taken", ["control", "bulk"])
def test_opening_a_transport_at_a_taken_address_fails_and_leaves_nothing_open(taken: str) -> None:
    async def scenario() -> None:
        north, south = make_nodes("north", "south")
        setattr(south, taken, getattr(north, taken))
        async with running(north):
            transport = south.make()
            with pytest.raises(TransportError, match="cannot listen"):
                await transport.open()
            await transport.close()  # once more does no harm

    asyncio.run(scenario())


def test_a_sealed_bulk_channel_needs_an_address() -> None:
    async def scenario() -> None:
        north = make_nodes("north", "south")[0]
        north.bulk = None  # type: ignore[assignment]
        with pytest.raises(TransportError, match="bulk_listen"):
            await north.make().open()

    asyncio.run(scenario())


def test_a_transport_that_was_never_opened_can_be_closed() -> None:
    async def scenario() -> None:
        await make_nodes("north", "south")[0].make().close()

    asyncio.run(scenario())


def test_a_wrong_address_of_a_peer_does_not_end_the_node() -> None:
    async def scenario() -> None:
        north = make_nodes("north", "south")[0]
        redirect(north, "south", control="tcp://127.0.0.1:99999")
        async with running(north):
            status = north.transport.links()["south"]
            await eventually(lambda: "tcp://host:port" in status.reason, "the reason is shown")
            assert north.error is None

    asyncio.run(scenario())
