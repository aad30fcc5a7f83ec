"""One attempt of the dialling side to connect: fresh sockets for messages and frames, through a proxy if need be."""

import secrets
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import zmq
import zmq.asyncio

from flop_p2p.transport.base import Peer, TransportKeys
from flop_p2p.transport.monitor import Monitor, WrongKeyError
from flop_p2p.transport.routes import LinkError, SocketRoute, Way
from flop_p2p.transport.sockets import bulk_client, curve_client, resolve
from flop_p2p.transport.socks import tunnel

BULK_ID_BYTES = 16


@dataclass(frozen=True)
class Connection:
    """Connected sockets to one neighbour; nothing was greeted yet.

    bulk_id: the routing id of the bulk socket, empty if CURVE carries the frames too.
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
        else:
            bulk_id = b"\x01" + secrets.token_bytes(BULK_ID_BYTES - 1)  # ids that begin with zero are ZeroMQ's own
            bulk, bulk_monitor = await _connect(stack, bulk_client(context, bulk_id), peer.bulk, proxy)
            way = Way(SocketRoute(control), SocketRoute(bulk))
            yield Connection(way, bulk_id, (control, bulk), (monitor, bulk_monitor))


async def _connect_control(
    stack: AsyncExitStack,
    context: zmq.asyncio.Context,
    keys: TransportKeys,
    peer: Peer,
    endpoint: str,
    proxy: str | None,
) -> tuple[zmq.asyncio.Socket, Monitor]:
    for key in peer.curve_keys[:-1]:
        try:
            return await _connect(stack, curve_client(context, keys, key), endpoint, proxy)
        except WrongKeyError:
            continue
    return await _connect(stack, curve_client(context, keys, peer.curve_keys[-1]), endpoint, proxy)


async def _connect(
    stack: AsyncExitStack, client: zmq.asyncio.Socket, endpoint: str, proxy: str | None
) -> tuple[zmq.asyncio.Socket, Monitor]:
    stack.callback(client.close)
    monitor = Monitor(client)
    stack.callback(monitor.close)
    if proxy is not None:
        client.connect(await stack.enter_async_context(tunnel(proxy, endpoint)))
        await monitor.connected(f"{endpoint} through the proxy {proxy}")
        return client, monitor
    addresses = await resolve(endpoint)
    for address in addresses[:-1]:
        try:
            client.connect(address)
            await monitor.connected(endpoint)
        except WrongKeyError:
            raise
        except LinkError:
            client.disconnect(address)
        else:
            return client, monitor
    client.connect(addresses[-1])
    await monitor.connected(endpoint)
    return client, monitor
