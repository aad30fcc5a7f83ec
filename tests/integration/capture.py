"""Run a federation in a network namespace of its own and look for bodies and layer names in all that crosses loopback.

    unshare --map-root-user --net python capture.py FOLDER sealed|clear

prints what was found as JSON. ``clear`` runs it over a transport that does not seal, to show that the search finds.
"""

import asyncio
import json
import socket
import struct
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path
from typing import Any

from federation import SMALL, Daemons, run_nodes
from safetensors import safe_open

from flop_p2p.config import load_experiment
from flop_p2p.models import build_model
from flop_p2p.transport.zeromq import ZmqTransport
from flop_p2p.wire import ClearOpener, ClearSealer, KeyExchange

RUN = 64  # bytes
EVERYTHING = socket.htons(0x0003)
SOL_PACKET, PACKET_STATISTICS = 263, 6
OUTGOING = 4  # every packet on loopback is seen twice, once as outgoing


class Capture:
    """The bytes of every TCP stream on loopback, in order."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, EVERYTHING)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 26)
        self._socket.bind(("lo", 0))
        self._socket.settimeout(0.2)
        self._packets: list[bytes] = []
        self._running = True
        self._thread = threading.Thread(target=self._listen)
        self._thread.start()

    def _listen(self) -> None:
        while self._running:
            try:
                packet, address = self._socket.recvfrom(1 << 17)
            except TimeoutError:
                continue
            if address[2] != OUTGOING:
                self._packets.append(packet)

    def streams(self) -> dict[tuple[int, int], bytes]:
        """What went from each port to each port, in the order of TCP's sequence numbers."""
        self._running = False
        self._thread.join()
        _, self.dropped = struct.unpack("II", self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
        pieces: dict[tuple[int, int], dict[int, bytes]] = defaultdict(dict)
        for packet in self._packets:
            ip = packet[14:]
            if packet[12:14] != b"\x08\x00" or ip[9] != socket.IPPROTO_TCP:
                continue
            tcp = ip[4 * (ip[0] & 15) : int.from_bytes(ip[2:4], "big")]
            ports = int.from_bytes(tcp[:2], "big"), int.from_bytes(tcp[2:4], "big")
            payload = tcp[4 * (tcp[12] >> 4) :]
            if payload:
                pieces[ports][int.from_bytes(tcp[4:8], "big")] = payload
        return {ports: b"".join(data for _, data in sorted(parts.items())) for ports, parts in pieces.items()}


class ClearTransport(ZmqTransport):
    """Does not seal, and tells the names of the body's tensors on a connection of its own."""

    names = ""

    async def open(self) -> None:
        KeyExchange.derive = _clear  # type: ignore[method-assign]
        await super().open()
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as client:
            client.sendall(self.names.encode())


def _clear(_: KeyExchange, __: bytes, *, session: bytes, **___: Any) -> tuple[ClearSealer, ClearOpener]:
    return ClearSealer(session), ClearOpener(session)


def bodies(federation: Daemons) -> dict[str, bytes]:
    """The last body that each site published."""
    found = {}
    for site in federation.sites.values():
        for path in sorted(site.state.glob("checkpoint-*.safetensors")):
            with safe_open(path, framework="pt") as file:
                if json.loads(file.metadata()["progress"])["phase"] == "published":
                    found[site.name] = file.get_tensor("body").numpy().tobytes()
    return found


def runs_found(streams: dict[tuple[int, int], bytes], body: bytes) -> int:
    """How many places in the streams hold 64 bytes that lie one after the other in the body."""
    known = {body[start : start + RUN] for start in range(len(body) - RUN + 1)}
    return sum(data[start : start + RUN] in known for data in streams.values() for start in range(len(data) - RUN + 1))


def main(folder: Path, mode: str) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    settings = load_experiment(overrides={**SMALL, "data.sites": 3, "data.limit_images": 300, "training.rounds": 2})
    federation = Daemons(settings, folder)
    names = small_cnn_names()
    ClearTransport.names = " ".join(names)
    capture = Capture()
    asyncio.run(run_nodes(federation.sites.values(), ClearTransport if mode == "clear" else ZmqTransport))
    streams = capture.streams()
    everything = b"\n".join(streams.values())
    sent = bodies(federation)
    result = {
        "dropped": capture.dropped,
        "bytes": len(everything),
        "body_bytes": {site: len(body) for site, body in sent.items()},
        "runs": {site: runs_found(streams, body) for site, body in sent.items()},
        "names": [name for name in names if name.encode() in everything],
    }
    print(json.dumps(result))


def small_cnn_names() -> tuple[str, ...]:
    """Names of all tensors of the model, of body and head."""
    model = build_model("small-cnn", (1, 8, 8), 10, 0)
    return tuple(model.state_dict())


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
