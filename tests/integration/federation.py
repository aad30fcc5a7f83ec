"""Federations of real daemons on loopback: each a process, with real keys, files and sockets."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import tomli_w

from flop_p2p.config import ExperimentSettings, load_site, read_toml
from flop_p2p.errors import NodeError
from flop_p2p.local.prepare import LocalSite, local_sites, prepare
from flop_p2p.node.daemon import Node
from flop_p2p.node.status import ask
from flop_p2p.simulation import load_data
from flop_p2p.transport.zeromq import ZmqTransport

SMALL = {
    "data.source": "digits",
    "data.sites": 4,
    "data.partition": "dirichlet:1",
    "data.limit_images": 800,
    "model.name": "small-cnn",
    "training.batch_size": 16,
    "training.lr": 0.02,
    "gossip.heartbeat": 0.5,
    "gossip.lost_after": 2.0,
    "gossip.deadline": 20.0,
}


class Daemons:
    """A prepared federation whose daemons a test starts, kills and reads."""

    def __init__(self, settings: ExperimentSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.data = load_data(settings)
        self.sites = {site.name: site for site in local_sites(settings, self.data, folder)}
        self.federation = prepare(settings, self.data, list(self.sites.values()), folder)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def change(self, name: str, **values: Any) -> None:
        """Change keys of a site's `site.toml`; None removes one."""
        path = self.sites[name].settings
        content = {**read_toml(path), **values}
        path.write_text(tomli_w.dumps({key: value for key, value in content.items() if value is not None}))

    def start(self, *names: str, options: tuple[str, ...] = (), prefix: tuple[str, ...] = ()) -> None:
        """Start the daemons of these sites, of all without any; ``prefix`` is a command that runs them."""
        for name in names or self.sites:
            with self.sites[name].log.open("ab") as log:
                command = [*prefix, sys.executable, "-m", "flop_p2p", "node", str(self.sites[name].settings)]
                self.processes[name] = subprocess.Popen(
                    [*command, "--log-format", "json", *options], stdout=log, stderr=log
                )

    def send(self, name: str, number: signal.Signals) -> None:
        """Send a signal to a daemon."""
        os.kill(self.processes[name].pid, number)

    def wait(self, *names: str, seconds: float = 90.0) -> dict[str, int]:
        """Exit codes of these daemons, of all without any, once they have ended."""
        end = time.monotonic() + seconds
        return {name: self.processes[name].wait(max(0.1, end - time.monotonic())) for name in names or self.processes}

    def status(self, name: str) -> dict[str, Any] | None:
        """What a daemon says of itself; None while it cannot be asked."""
        try:
            return ask(self.sites[name].state)
        except NodeError:
            return None

    def wait_until(self, name: str, reached: Callable[[dict[str, Any]], bool], seconds: float = 60.0) -> dict[str, Any]:
        """The first status of a daemon for which ``reached`` holds."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            status = self.status(name)
            if status is not None and reached(status):
                return status
            time.sleep(0.02)
        raise TimeoutError(f"{name}: {self.status(name)}\n{self.log(name)}")

    def log(self, name: str) -> str:
        """All that a daemon printed."""
        return self.sites[name].log.read_text()

    def events(self, name: str) -> list[str]:
        """The texts of a daemon's log lines."""
        lines = [text for text in self.log(name).splitlines() if text.startswith("{")]
        return [json.loads(text)["event"] for text in lines]

    def summary(self, name: str) -> dict[str, Any]:
        """A site's `summary.json`."""
        loaded: dict[str, Any] = json.loads((self.sites[name].state / "summary.json").read_text())
        return loaded

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The lines of a site's `metrics.jsonl`."""
        texts = (self.sites[name].state / "metrics.jsonl").read_text().splitlines()
        return [json.loads(text) for text in texts]

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.processes.values():
            if process.poll() is None:
                process.kill()
            process.wait()


async def run_nodes(sites: Iterable[LocalSite], transport_type: type[ZmqTransport] = ZmqTransport) -> None:
    """Run the nodes of these sites in this process until all have finished."""
    kind = type("TestedNode", (Node,), {"transport_type": transport_type})
    nodes = [kind(load_site(site.settings)) for site in sites]
    try:
        await asyncio.gather(*(node.run() for node in nodes))
    finally:
        for node in nodes:
            node.lock.release()


async def run_until(sites: Iterable[LocalSite], completed: int | None = None) -> list[dict[str, Any]]:
    """Run the nodes of these sites in this process, to the end or until each has completed so many rounds.

    Returns their summaries.
    """
    nodes = [Node(load_site(site.settings)) for site in sites]
    try:
        running = asyncio.gather(*(node.run() for node in nodes))
        while completed is not None and min(node.snapshot()["completed"] for node in nodes) < completed:
            await asyncio.sleep(0.005)
        for node in nodes if completed is not None else ():
            node.driver.stop()
        return await running
    finally:
        for node in nodes:
            node.lock.release()
