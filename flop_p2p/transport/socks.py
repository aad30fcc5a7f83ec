"""Outgoing connections through a SOCKS5 proxy (RFC 1928, without authentication).

ZeroMQ has a SOCKS client of its own, but it aborts the whole process when a socket is closed whose proxy could not be
reached (libzmq 4.3.5). So the proxy is asked here, and ZeroMQ connects to a local socket whose bytes are passed on.
"""

import asyncio
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

from flop_p2p.transport.routes import LinkError
from flop_p2p.transport.sockets import CONNECT_TIMEOUT, LINGER, keep_alive, split_endpoint

BLOCK = 1 << 18  # bytes passed on at a time
REPLIES = {
    1: "general failure",
    2: "not allowed",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "timed out",
}


@asynccontextmanager
async def tunnel(proxy: str, endpoint: str) -> AsyncIterator[str]:
    """A local endpoint, for one connection, that leads through ``proxy`` (``host:port``) to ``endpoint``.

    Raises:
        LinkError: the proxy is not there or does not connect.
    """
    far_reader, far_writer = await _open(proxy, endpoint)
    writers = [far_writer]
    copying: list[asyncio.Task[None]] = []

    async def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        server.close()
        writers.append(writer)
        copying.extend(
            asyncio.ensure_future(_copy(source, sink)) for source, sink in ((reader, far_writer), (far_reader, writer))
        )

    with tempfile.TemporaryDirectory(prefix="flop-p2p-") as folder:
        path = str(Path(folder) / "tunnel")
        server = await asyncio.start_unix_server(accepted, path)
        try:
            yield f"ipc://{path}"
        finally:
            server.close()
            if copying:  # the socket was closed, but its last words may still be on their way
                await asyncio.wait(copying[:1], timeout=LINGER)
            for task in copying:
                task.cancel()
            await asyncio.gather(*copying, return_exceptions=True)
            for writer in writers:
                writer.transport.abort()
            await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


async def _open(proxy: str, endpoint: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    host, port = split_endpoint(proxy)
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            reader, writer = await asyncio.open_connection(host, port)
    except (OSError, UnicodeError, TimeoutError):
        raise LinkError(f"the proxy {proxy} does not answer") from None
    keep_alive(writer.get_extra_info("socket"))
    try:
        async with asyncio.timeout(CONNECT_TIMEOUT):
            await _ask(reader, writer, *split_endpoint(endpoint))
    except TimeoutError:
        reason = f"no answer in {CONNECT_TIMEOUT:g} s"
    except (OSError, asyncio.IncompleteReadError):
        reason = "it closed the connection"
    except ValueError:  # it cannot be encoded, or is too long
        reason = "that is no host name"
    except LinkError as error:
        reason = str(error)
    else:
        return reader, writer
    writer.close()
    raise LinkError(f"the proxy {proxy} does not connect to {endpoint}: {reason}")


async def _ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, host: str, port: int) -> None:
    writer.write(b"\x05\x01\x00")
    if await reader.readexactly(2) != b"\x05\x00":
        raise LinkError("it is no SOCKS5 proxy, or wants a password")
    name = host.encode("idna")
    writer.write(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
    _, reply, _, kind = await reader.readexactly(4)
    if reply:
        raise LinkError(REPLIES.get(reply, f"reply {reply}"))
    length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
    await reader.readexactly(length + 2)


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(BLOCK):
            sink.write(data)
            await sink.drain()
        sink.close()
        await sink.wait_closed()
