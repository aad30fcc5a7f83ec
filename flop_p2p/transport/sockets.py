"""ZeroMQ sockets with the options that every connection between hospitals gets, and the addresses they take."""

import asyncio
import socket

import zmq
import zmq.asyncio

from flop_p2p.errors import TransportError
from flop_p2p.transport.base import TransportKeys
from flop_p2p.transport.routes import LinkError
from flop_p2p.wire import MAX_CONTROL_BYTES, MAX_FRAME_BYTES

ZAP_DOMAIN = b"flop-p2p"
CONNECT_TIMEOUT = 5.0  # seconds for TCP to connect, through a proxy too
HANDSHAKE_TIMEOUT = 10.0  # seconds for ZeroMQ's handshake, and as many for the greeting
LINGER = 0.5  # seconds in which a closing socket may still send what is queued
KEEPALIVE_IDLE = 60  # seconds; firewalls forget connections that are idle while a site trains
KEEPALIVE_INTERVAL, KEEPALIVE_COUNT = 10, 6  # seconds between, and number of, unanswered packets until it is dead
CONTROL_QUEUE = 64  # messages of the control channel that may wait, each way and each connection
BULK_QUEUE = 10  # frames of the bulk channel, likewise: the window and a little more
MARGIN = 1024  # bytes by which CURVE and msgpack may lengthen a message
MAX_ADDRESSES = 4  # addresses of one host name that are tried


def curve_server(context: zmq.asyncio.Context, keys: TransportKeys) -> zmq.asyncio.Socket:
    """A ROUTER for messages. Without an authenticator in its context it accepts nobody."""
    router = _router(context, CONTROL_QUEUE, MAX_FRAME_BYTES)
    router.curve_server = True
    router.curve_publickey, router.curve_secretkey = keys.public, keys.secret
    router.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return router


def bulk_server(context: zmq.asyncio.Context) -> zmq.asyncio.Socket:
    """A plain ROUTER for frames that are sealed already. The authenticator of its context bounds its connections."""
    router = _router(context, BULK_QUEUE, MAX_FRAME_BYTES)
    router.setsockopt(zmq.ZAP_DOMAIN, ZAP_DOMAIN)
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return router


def curve_client(context: zmq.asyncio.Context, keys: TransportKeys, server_key: str) -> zmq.asyncio.Socket:
    """A DEALER for messages to the node that holds the secret of ``server_key`` (Z85).

    Raises:
        LinkError: that is no key.
    """
    dealer = _dealer(context, CONTROL_QUEUE, MAX_FRAME_BYTES)
    dealer.curve_publickey, dealer.curve_secretkey = keys.public, keys.secret
    try:
        dealer.curve_serverkey = server_key.encode()
    except zmq.ZMQError:
        dealer.close()
        raise LinkError(f"{server_key!a} is no CURVE key") from None
    return dealer


def bulk_client(context: zmq.asyncio.Context, bulk_id: bytes) -> zmq.asyncio.Socket:
    """A plain DEALER for sealed frames, known to the other side by ``bulk_id``."""
    dealer = _dealer(context, BULK_QUEUE, MAX_FRAME_BYTES)
    dealer.setsockopt(zmq.ROUTING_ID, bulk_id)
    return dealer


def bind(server: zmq.asyncio.Socket, endpoint: str) -> None:
    """Bind to ``tcp://host:port``; the host may be a name, an address, or ``*`` for every interface.

    Raises:
        TransportError: the address is taken, not of this machine, or no address at all.
    """
    host, port = split_endpoint(endpoint)
    try:
        if host != "*":
            found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
            host = str(found[0][4][0])
        server.bind(_endpoint(host, port))
    except UnicodeError:
        raise TransportError(f"cannot listen at {endpoint!a}: {host!a} is no host name") from None
    except (OSError, zmq.ZMQError) as error:
        raise TransportError(f"cannot listen at {endpoint}: {error.strerror}") from None


def split_endpoint(endpoint: str) -> tuple[str, int]:
    """Host and port of ``tcp://host:port``; an IPv6 address may stand in brackets.

    Raises:
        TransportError: it is not of that form.
    """
    host, _, port = endpoint.removeprefix("tcp://").rpartition(":")
    if not host or not port.isdecimal() or int(port) > 65535:
        raise TransportError(f"{endpoint!a} is no address; write tcp://host:port")
    return host.removeprefix("[").removesuffix("]"), int(port)


async def resolve(endpoint: str) -> list[str]:
    """The endpoints with numbers that ``endpoint`` stands for: a host name may have IPv6 and IPv4 addresses.

    Raises:
        LinkError: the name is unknown.
    """
    host, port = split_endpoint(endpoint)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError, TimeoutError):
        raise LinkError(f"the host name {host} is unknown here") from None
    return list(dict.fromkeys(_endpoint(str(entry[4][0]), port) for entry in found))[:MAX_ADDRESSES]


def keep_alive(connection: socket.socket) -> None:
    """The same for a connection that ZeroMQ does not make."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    times = {"TCP_KEEPIDLE": KEEPALIVE_IDLE, "TCP_KEEPINTVL": KEEPALIVE_INTERVAL, "TCP_KEEPCNT": KEEPALIVE_COUNT}
    for name, value in times.items():
        if hasattr(socket, name):  # not every system has all of them
            connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _endpoint(host: str, port: int) -> str:
    return f"tcp://[{host}]:{port}" if ":" in host else f"tcp://{host}:{port}"


def _router(context: zmq.asyncio.Context, queue: int, largest: int) -> zmq.asyncio.Socket:
    router = _socket(context, zmq.ROUTER, queue, largest)
    router.setsockopt(zmq.ROUTER_MANDATORY, 1)
    return router


def _dealer(context: zmq.asyncio.Context, queue: int, largest: int) -> zmq.asyncio.Socket:
    dealer = _socket(context, zmq.DEALER, queue, largest)
    # Every attempt gets a fresh socket. IMMEDIATE stays off: with it a broken connection takes along what was received
    # and not yet read, a goodbye perhaps; what it is for, not to queue while unconnected, `Monitor.connected` does.
    dealer.setsockopt(zmq.RECONNECT_IVL, -1)
    dealer.setsockopt(zmq.CONNECT_TIMEOUT, int(1000 * CONNECT_TIMEOUT))
    return dealer


def _socket(context: zmq.asyncio.Context, kind: int, queue: int, largest: int) -> zmq.asyncio.Socket:
    made = context.socket(kind)
    options = {
        zmq.LINGER: int(1000 * LINGER),
        zmq.SNDHWM: queue,
        zmq.RCVHWM: queue,
        zmq.MAXMSGSIZE: max(largest, MAX_CONTROL_BYTES) + MARGIN,
        zmq.HANDSHAKE_IVL: int(1000 * HANDSHAKE_TIMEOUT),
        zmq.IPV6: 1,
        zmq.TCP_KEEPALIVE: 1,
        zmq.TCP_KEEPALIVE_IDLE: KEEPALIVE_IDLE,
        zmq.TCP_KEEPALIVE_INTVL: KEEPALIVE_INTERVAL,
        zmq.TCP_KEEPALIVE_CNT: KEEPALIVE_COUNT,
    }
    for option, value in options.items():
        made.setsockopt(option, value)
    return made
