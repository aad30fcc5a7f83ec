"""A site that only dials out, through a SOCKS5 proxy too."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from network_relay import Relay, SocksProxy
from network_tools import Node, eventually, make_body, make_nodes, peer_of, redirect, running

from flop_p2p.transport.base import BodyReceived, Connected, Delivered, Left, Lost
from flop_p2p.transport.outgoing import SEALED_CHUNK_BYTES
from flop_p2p.transport.sockets import split_endpoint

PARAMETERS = 5 * SEALED_CHUNK_BYTES // 4


def hidden_and_open(parameters: int = 5, **changes: object) -> tuple[Node, Node]:
    """South is late in the alphabet, but it has no address and so it dials."""
    north, south = make_nodes("north", "south", parameters=parameters, **changes)
    south.listens = False
    south.peers = [peer_of(north, dials=True)]
    north.peers = [replace(peer_of(south, dials=False), control=None, bulk=None)]
    return south, north


@pytest.mark.parametrize("bulk", ["sealed", "curve"])
@pytest.mark.parametrize("by_proxy", [False, True])
def test_bodies_go_both_ways_though_nothing_listens_at_one_side(bulk: str, by_proxy: bool) -> None:
    async def scenario() -> None:
        hidden, open_site = hidden_and_open(PARAMETERS, bulk=bulk)
        body = make_body(PARAMETERS)
        async with SocksProxy() as proxy:
            hidden.proxy = proxy.address if by_proxy else None
            async with running(hidden, open_site):
                await open_site.until(Connected)
                for port in (hidden.control, hidden.bulk):
                    with pytest.raises(OSError, match=r"refused|failed"):
                        await asyncio.open_connection(*split_endpoint(port))
                hidden.send("north", 1, body)
                open_site.send("south", 1, body)
                assert np.array_equal((await hidden.until(BodyReceived)).body, body)
                assert np.array_equal((await open_site.until(BodyReceived)).body, body)
            channels = [open_site.control, open_site.bulk] if bulk == "sealed" else [open_site.control]
            assert proxy.asked == ([split_endpoint(channel) for channel in channels] if by_proxy else [])

    asyncio.run(scenario())


def test_last_words_get_through_a_proxy() -> None:
    async def scenario() -> None:
        hidden, open_site = hidden_and_open()
        async with SocksProxy() as proxy:
            hidden.proxy = proxy.address
            async with running(open_site):
                await hidden.start()
                await hidden.until(Connected)
                hidden.send("north", 3, make_body(5))
                await hidden.transport.goodbye(3, True)
                await hidden.stop()
                await open_site.until(BodyReceived, round=3)
                await open_site.until(Left, last_round=3)
        assert hidden.seen(Delivered)

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("reply", "reason"), [(5, "connection refused"), (2, "not allowed"), (99, "reply 99"), (4, "host unreachable")]
)
def test_what_the_proxy_says_is_the_reason(reply: int, reason: str) -> None:
    async def scenario() -> None:
        hidden, _ = hidden_and_open()
        async with SocksProxy(reply) as proxy:
            hidden.proxy = proxy.address
            async with running(hidden):
                status = hidden.transport.links()["north"]
                await eventually(lambda: reason in status.reason, "the reason is shown")
                assert proxy.address in status.reason

    asyncio.run(scenario())


def test_a_proxy_that_is_not_there_is_named_and_the_node_lives_on() -> None:
    async def scenario() -> None:
        hidden, open_site = hidden_and_open()
        async with SocksProxy() as proxy:
            hidden.proxy = proxy.address
        async with running(hidden, open_site):
            status = hidden.transport.links()["north"]
            await eventually(lambda: f"the proxy {proxy.address} does not answer" in status.reason, "it is named")
            await asyncio.sleep(0.3)
        assert not hidden.seen(Connected)

    asyncio.run(scenario())


def test_what_answers_but_is_no_proxy_is_told_apart() -> None:
    async def scenario() -> None:
        hidden, open_site = hidden_and_open()
        async with running(open_site), Relay(open_site.control) as relay:
            hidden.proxy = relay.endpoint.removeprefix("tcp://")
            async with running(hidden):
                status = hidden.transport.links()["north"]
                await eventually(lambda: "no SOCKS5 proxy" in status.reason, "it is told apart")

    asyncio.run(scenario())


def test_a_proxy_that_restarts_costs_the_connection_and_not_the_node() -> None:
    async def scenario() -> None:
        hidden, open_site = hidden_and_open()
        async with running(open_site), SocksProxy() as proxy, Relay(f"tcp://{proxy.address}") as relay:
            hidden.proxy = relay.endpoint.removeprefix("tcp://")
            async with running(hidden):
                await hidden.until(Connected)
                relay.refusing = True
                relay.cut()
                await hidden.until(Lost)
                status = hidden.transport.links()["north"]
                await eventually(lambda: "it closed the connection" in status.reason, "the proxy is down")
                relay.refusing = False
                await hidden.until(Connected, 2)
                hidden.send("north", 1, make_body(5))
                await hidden.until(Delivered)

    asyncio.run(scenario())


@pytest.mark.parametrize("host", ["a..b", 70 * "a", ".".join(5 * [60 * "a"])])
def test_what_is_no_host_name_does_not_end_the_node(host: str) -> None:
    async def scenario() -> None:
        async with SocksProxy() as proxy:
            for through, control in ((proxy.address, f"tcp://{host}:5000"), (f"{host}:1080", "tcp://127.0.0.1:5000")):
                hidden, _ = hidden_and_open()
                hidden.proxy = through
                redirect(hidden, "north", control=control)
                async with running(hidden):
                    status = hidden.transport.links()["north"]
                    await eventually(lambda link=status: "the proxy" in link.reason, "a reason is given")
                    assert hidden.error is None

    asyncio.run(scenario())
