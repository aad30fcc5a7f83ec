"""The processes of a local federation: start, watch, stop."""

import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from flop_p2p.errors import NodeError
from flop_p2p.local.prepare import LocalSite
from flop_p2p.node.status import ask
from flop_p2p.writing import writing

STOP_SECONDS = 15.0  # more than a node takes to finish its exchange and say goodbye

Snapshot = dict[str, Any]


class Processes:
    """One daemon a site, each a process of its own with its output in its `node.log`."""

    def __init__(self, sites: Sequence[LocalSite]) -> None:
        self.sites = tuple(sites)
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        """Start all daemons.

        Raises:
            RunError: a log file cannot be written.
        """
        for site in self.sites:
            command = [sys.executable, "-m", "flop_p2p", "node", str(site.settings), "--log-format", "json"]
            with writing(site.log), site.log.open("ab") as log:
                self._running[site.name] = subprocess.Popen(
                    command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )

    def alive(self) -> list[str]:
        """Names of the sites whose daemon runs."""
        return [name for name, process in self._running.items() if process.poll() is None]

    def exit_codes(self) -> dict[str, int | None]:
        """The exit code of each daemon; None while it runs."""
        return {name: process.poll() for name, process in self._running.items()}

    def snapshots(self) -> dict[str, Snapshot | None]:
        """What each running daemon says of itself; None where it cannot be asked (yet, or any more)."""
        return {site.name: self._ask(site) for site in self.sites}

    def _ask(self, site: LocalSite) -> Snapshot | None:
        if self._running[site.name].poll() is None:
            with suppress(NodeError):
                return ask(site.state)
        return None

    def stop(self) -> None:
        """Ask all daemons to finish their exchange and leave; those that do not are killed."""
        for process in self._running.values():
            if process.poll() is None:
                process.terminate()
        end = time.monotonic() + STOP_SECONDS
        for process in self._running.values():
            try:
                process.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
