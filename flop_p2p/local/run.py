"""A local federation from settings to a finished run directory."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData
from flop_p2p.errors import ConfigError, Interrupted, NodeError
from flop_p2p.local.addresses import renew_addresses
from flop_p2p.local.clock import Clock
from flop_p2p.local.prepare import FEDERATION, LocalSite, check_settings, local_sites, prepare
from flop_p2p.local.processes import Processes
from flop_p2p.local.progress import DaemonState, dead_end
from flop_p2p.local.results import collect
from flop_p2p.node.lock import StateLock
from flop_p2p.simulation import load_data
from flop_p2p.simulation.engine import Simulation
from flop_p2p.simulation.interrupt import stop_wish
from flop_p2p.simulation.run_directory import RunDirectory

METHODS = ("p2p-flop", "p2p-flop-alt", "flop")
POLL_SECONDS = 0.25

Watch = Callable[[Mapping[str, DaemonState]], None]


def run_local(
    settings: ExperimentSettings,
    directory: Path,
    *,
    data: FederatedData | None = None,
    resume: bool = False,
    watch: Watch | None = None,
) -> dict[str, Any]:
    """Run one daemon a hospital as processes on this machine and return the summary of the run.

    Args:
        data: what `load_data` gives for these settings, if it was loaded already.
        resume: go on with the daemons of an interrupted run.
        watch: called again and again with the state of every daemon, by site; the last time when all have ended.

    Raises:
        FlopError: the settings make no federation, or ``directory`` cannot be used.
        NodeError: a daemon ended with an error; the others finished unless nothing could come of it, and the line
            says which.
        Interrupted: the user asked to stop; all daemons left cleanly, and what there is was kept.
    """
    _check(settings)
    with stop_wish() as asked_to_stop:
        data = load_data(settings) if data is None else data
        sites = local_sites(settings, data, directory)
        Simulation(settings, data, data.sites)  # what it refuses leaves no directory behind
        check_settings(settings, data, sites)
        files = RunDirectory(directory, settings, resume)
        if (finished := files.summary()) is not None:
            return finished
        _lay_out(settings, data, sites, directory)
        clock = Clock(directory / "local.json")
        try:
            _run(Processes(sites), settings.training.rounds, directory, watch, asked_to_stop)
        finally:
            clock.stop()
        summary = collect(settings, data, sites, directory, clock.seconds)
        files.finish(summary)
        return summary


def _check(settings: ExperimentSettings) -> None:
    if settings.method not in METHODS:
        raise ConfigError(
            f"--method {settings.method}: a federation of daemons runs {', '.join(METHODS)}; "
            "`flop-p2p simulate` runs the others"
        )
    unsupported = {
        "--late-sites": settings.late_sites > 0,
        "--early-stopping": settings.training.early_stopping > 0,
        "--participation": settings.training.participation < 1,
    }
    for flag, given in unsupported.items():
        if given:
            raise ConfigError(f"{flag} is for `flop-p2p simulate`; a federation of daemons has no one to decide it")


def _lay_out(settings: ExperimentSettings, data: FederatedData, sites: Sequence[LocalSite], directory: Path) -> None:
    """Prepare a federation, or one that was begun to go on.

    Raises:
        NodeError: a daemon of an earlier start still runs.
    """
    if not (directory / FEDERATION).exists():
        prepare(settings, data, sites, directory)
        return
    for site in sites:
        StateLock(site.state).release()
    renew_addresses(sites, directory)


def _run(
    processes: Processes, rounds: int, directory: Path, watch: Watch | None, asked_to_stop: Callable[[], bool]
) -> None:
    states: dict[str, DaemonState] = {}
    reason = None
    try:
        if not asked_to_stop():
            processes.start()
        while not asked_to_stop() and reason is None and not _all_ended(states):
            time.sleep(POLL_SECONDS)
            before, states = states, processes.states()
            if watch is not None:
                watch(states)
            # daemons are asked one after the other: what was so at both looks was so of all at once
            reason = dead_end(before) and dead_end(states)
    finally:
        processes.stop()
    if asked_to_stop():
        raise Interrupted(
            f"stopped; no daemon runs any more and all is kept in {directory}; "
            f"go on with the same command and --out {directory} --resume"
        )
    if failure := _failure(processes, states, rounds, reason):
        raise NodeError(f"{failure}; mend this and go on with --out {directory} --resume")


def _all_ended(states: Mapping[str, DaemonState]) -> bool:
    return bool(states) and all(each.exit_code is not None for each in states.values())


def _failure(processes: Processes, states: Mapping[str, DaemonState], rounds: int, reason: str | None) -> str | None:
    """What went wrong, with the last words of the first daemon that did not go to the end; None if all did."""
    short = [each for each in states.values() if each.exit_code is not None]
    short = [each for each in short if each.failed or each.completed < rounds]
    words = f"; {processes.last_words(short[0].site)}" if short else ""
    if reason is not None:
        return f"{reason}{words}; the others were stopped"
    if short:
        first, names = short[0], ", ".join(each.site.name for each in short)
        return (
            f"{len(short)} of {len(states)} daemons did not go to the end ({names}); {first.site.name} ended with exit "
            f"code {first.exit_code} after {first.completed} of {rounds} rounds{words}"
        )
    return None
