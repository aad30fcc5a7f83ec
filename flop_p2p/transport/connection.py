"""One attempt of the dialling side to connect: fresh sockets for messages and frames, through a proxy if need be."""

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial

import zmq
import zmq.asyncio

from flop_p2p.transport.base import Peer, TransportKeys
from flop_p2p.transport.monitor import Monitor, WrongKeyError
from flop_p2p.transport.routes import LinkError, SocketRoute, Way
from flop_p2p.transport.sockets import bulk_client, curve_client, resolve
from flop_p2p.transport.socks import tunnel

BULK_ID_BYTES = 16

MakeClient = Callable[[], zmq.asyncio.Socket]
Connected = tuple[zmq.asyncio.Socket, Monitor]


@dataclass(frozen=True)
class Connection:
    """Connected sockets to one neighbour; nothing was greeted yet.

    bulk_id: the routing id of the bulk socket, empty if CURVE carries the frames too.
    sockets, monitors: of the control and, if there is one, the bulk channel.
    """

    way: Way
    bulk_id: bytes
    sockets: tuple[zmq.asyncio.Socket, ...]
    monitors: tuple[Monitor, ...]


@asynccontextmanager
async def connect(
    context: zmq.asyncio.Context, keys: TransportKeys, peer: Peer, *, sealed: bool, proxy: str | None
) -> AsyncIterator[Connection]:
    """Connect to ``peer``, trying its keys one after the other; everything is closed at the end.

    Raises:
        LinkError: no connection, and why.
    """
    if peer.control is None or (sealed and peer.bulk is None):
        raise LinkError(f"no address to dial {peer.name} at; give one in the federation file or in site.toml")
    async with AsyncExitStack() as stack:
        control, monitor = await _connect_control(stack, context, keys, peer, peer.control, proxy)
        if not sealed or peer.bulk is None:
            yield Connection(Way(SocketRoute(control), SocketRoute(control)), b"", (control,), (monitor,))
            return
        bulk_id = b"\x01" + secrets.token_bytes(BULK_ID_BYTES - 1)  # ids that begin with zero are ZeroMQ's own
        bulk, bulk_monitor = await _connect(stack, partial(bulk_client, context, bulk_id), peer.bulk, proxy)
        way = Way(SocketRoute(control), SocketRoute(bulk))
        yield Connection(way, bulk_id, (control, bulk), (monitor, bulk_monitor))


async def _connect_control(
    stack: AsyncExitStack,
    context: zmq.asyncio.Context,
    keys: TransportKeys,
    peer: Peer,
    endpoint: str,
    proxy: str | None,
) -> Connected:
    failure = LinkError(f"{peer.name} has no key in the federation file")
    for key in peer.curve_keys:
        try:
            return await _connect(stack, partial(curve_client, context, keys, key), endpoint, proxy)
        except WrongKeyError as error:
            failure = error
    raise failure


async def _connect(stack: AsyncExitStack, make: MakeClient, endpoint: str, proxy: str | None) -> Connected:
    if proxy is not None:
        local = await stack.enter_async_context(tunnel(proxy, endpoint))
        return await _try(stack, make, local, f"{endpoint} through the proxy {proxy}")
    failure = LinkError(f"no address of {endpoint} is known")
    for address in await resolve(endpoint):
        try:
            return await _try(stack, make, address, endpoint)
        except WrongKeyError:
            raise
        except LinkError as error:
            failure = error
    raise failure


async def _try(stack: AsyncExitStack, make: MakeClient, address: str, where: str) -> Connected:
    async with AsyncExitStack() as attempt:
        client = make()
        attempt.callback(client.close)
        monitor = Monitor(client)
        attempt.callback(monitor.close)
        try:
            client.connect(address)
        except zmq.ZMQError as error:
            raise LinkError(f"cannot dial {where}: {error.strerror}") from None
        await monitor.connected(where)
        await stack.enter_async_context(attempt.pop_all())
    return client, monitor
