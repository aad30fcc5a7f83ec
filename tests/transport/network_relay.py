"""What stands between two nodes in the tests: a TCP relay that records, alters and cuts, and a SOCKS5 proxy."""

import asyncio
from collections.abc import Callable
from contextlib import suppress

Frames = list[bytes]


Change = Callable[[bytes], bytes]


def untouched() -> Change:
    return lambda data: data


async def end(tasks: set[asyncio.Task[None]], writers: list[asyncio.StreamWriter]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for writer in writers:
        writer.transport.abort()
    await asyncio.gather(*(writer.wait_closed() for writer in writers), return_exceptions=True)


class Relay:
    """Passes TCP connections on to ``target`` (tcp://host:port). ``async with`` opens and closes it.

    Attributes:
        endpoint: where to connect instead of the target.
        recorded: everything that went to the target, and everything that came back.
        forth, back: make, for each connection, what is done to each piece of data in that direction.
        stuck: nothing is passed on in either direction, though the connections stay; stuck_forth: to the target.
        refusing: new connections are closed at once.
    """

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("tcp://").rsplit(":", 1)
        self._target = host, int(port)
        self.recorded = bytearray(), bytearray()
        self.forth: Callable[[], Change] = untouched
        self.back: Callable[[], Change] = untouched
        self.stuck = self.stuck_forth = False
        self.refusing = False
        self.connections = 0
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "Relay":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.endpoint = f"tcp://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await end(self._tasks, self._writers)

    def cut(self) -> None:
        """Break all connections."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers = []

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.refusing:
            writer.transport.abort()
            return
        far_reader, far_writer = await asyncio.open_connection(*self._target)
        self._writers += [writer, far_writer]
        for source, sink, way in ((reader, far_writer, 0), (far_reader, writer, 1)):
            task = asyncio.create_task(self._copy(source, sink, way))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: int) -> None:
        change = (self.forth, self.back)[way]()
        with suppress(OSError):
            while data := await source.read(1 << 18):
                while self.stuck or (self.stuck_forth and way == 0):
                    await asyncio.sleep(0.01)
                self.recorded[way].extend(data)
                sink.write(change(data))
                await sink.drain()
        sink.close()


class FrameChanger:
    """Takes a ZMTP stream without encryption apart into messages (https://rfc.zeromq.org/spec/23) and alters them.

    One instance serves one connection: ``relay.forth = lambda: FrameChanger(change)``. ``change`` gets the
    parts of each message and returns the messages to pass on.
    """

    GREETING = 64

    def __init__(self, change: Callable[[Frames], list[Frames]]) -> None:
        self._change = change
        self._data = bytearray()
        self._greeting = self.GREETING  # bytes of it that are still to come
        self._parts: Frames = []

    def __call__(self, data: bytes) -> bytes:
        self._data += data
        passed = self._take(min(self._greeting, len(self._data)))
        self._greeting -= len(passed)
        while not self._greeting and (frame := self._frame()) is not None:
            flags, whole, body = frame
            if flags & 4:  # a command
                passed += whole
                continue
            self._parts.append(body)
            if not flags & 1:  # no more parts
                for parts in self._change(self._parts):
                    passed += b"".join(pack(part, more=at + 1 < len(parts)) for at, part in enumerate(parts))
                self._parts = []
        return passed

    def _frame(self) -> tuple[int, bytes, bytes] | None:
        if len(self._data) < 2:
            return None
        head = 9 if self._data[0] & 2 else 2
        if len(self._data) < head:
            return None
        size = int.from_bytes(self._data[1:head], "big")
        if len(self._data) < head + size:
            return None
        flags = self._data[0]
        whole = self._take(head + size)
        return flags, whole, whole[head:]

    def _take(self, size: int) -> bytes:
        taken = bytes(self._data[:size])
        del self._data[:size]
        return taken


def pack(part: bytes, *, more: bool) -> bytes:
    if len(part) < 256:
        return bytes([more, len(part)]) + part
    return bytes([more | 2]) + len(part).to_bytes(8, "big") + part


class SocksProxy:
    """A SOCKS5 proxy without authentication. ``reply`` other than 0 makes it refuse every request."""

    def __init__(self, reply: int = 0) -> None:
        self.reply = reply
        self.asked: list[tuple[str, int]] = []
        self._writers: list[asyncio.StreamWriter] = []
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> "SocksProxy":
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()
        await end(self._tasks, self._writers)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.append(writer)
        methods = (await reader.readexactly(2))[1]
        await reader.readexactly(methods)
        writer.write(b"\x05\x00")
        _, _, _, kind = await reader.readexactly(4)
        length = {1: 4, 4: 16}.get(kind) or (await reader.readexactly(1))[0]
        host, port = (await reader.readexactly(length)).decode(), int.from_bytes(await reader.readexactly(2), "big")
        self.asked.append((host, port))
        writer.write(bytes([5, self.reply, 0, 1, 0, 0, 0, 0, 0, 0]))
        if self.reply:
            writer.close()
            return
        far_reader, far_writer = await asyncio.open_connection(host, port)
        self._writers.append(far_writer)
        for source, sink in ((reader, far_writer), (far_reader, writer)):
            task = asyncio.create_task(self._copy(source, sink))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _copy(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while data := await source.read(1 << 18):
                sink.write(data)
                await sink.drain()
        sink.close()
