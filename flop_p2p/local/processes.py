"""The processes of a local federation: start, watch, stop."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from flop_p2p.errors import NodeError
from flop_p2p.local.prepare import LocalSite
from flop_p2p.local.progress import DaemonState, Rounds, Snapshot, last_words
from flop_p2p.node.status import ask
from flop_p2p.writing import writing

STOP_SECONDS = 15.0  # more than a node takes to finish its exchange and say goodbye
LEASH = Path(__file__).with_name("leash.py")


class Processes:
    """One daemon a site, each a process of its own with its output in its `node.log`.

    On Linux they end, cleanly, when this process dies.
    """

    def __init__(self, sites: Sequence[LocalSite]) -> None:
        self.sites = tuple(sites)
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._log_starts: dict[str, int] = {}
        self._answers: dict[str, Snapshot] = {}
        self._rounds = {site.name: Rounds(site.state / "metrics.jsonl") for site in sites}

    def start(self) -> None:
        """Start all daemons.

        Raises:
            RunError: a log file cannot be written.
        """
        leash = [sys.executable, "-I", str(LEASH), str(os.getpid())] if sys.platform.startswith("linux") else []
        for site in self.sites:
            command = [sys.executable, "-m", "flop_p2p", "node", str(site.settings), "--log-format", "json"]
            with writing(site.log), site.log.open("ab") as log:
                self._log_starts[site.name] = log.tell()
                self._running[site.name] = subprocess.Popen(
                    [*leash, *command], stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
                )

    def states(self) -> dict[str, DaemonState]:
        """How far every daemon is, by site."""
        return {site.name: self._state(site) for site in self.sites}

    def _state(self, site: LocalSite) -> DaemonState:
        name, process = site.name, self._running[site.name]
        silent = True
        with suppress(NodeError):  # it cannot be asked yet, or any more
            self._answers[name] = ask(site.state)
            silent = False
        exit_code, rounds = process.poll(), self._rounds[name]
        if name in self._answers or exit_code is not None:  # before, lines of a former start may lie there
            rounds.read()
        return DaemonState(site, self._answers.get(name), exit_code, rounds.completed, dict(rounds.accuracies), silent)

    def last_words(self, site: LocalSite) -> str:
        """What the daemon printed last, in quotes, and where all of it is."""
        text = last_words(site.log, self._log_starts[site.name])
        return f"it said {text!r} last, see {site.log}" if text else f"it said nothing, see {site.log}"

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
