"""A local federation from settings to a finished run directory."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData
from flop_p2p.errors import ConfigError, Interrupted, NodeError
from flop_p2p.local.prepare import local_sites, prepare
from flop_p2p.local.processes import Processes, Snapshot
from flop_p2p.local.results import collect
from flop_p2p.simulation import load_data
from flop_p2p.simulation.interrupt import stop_wish
from flop_p2p.simulation.run_directory import RunDirectory

METHODS = ("p2p-flop", "p2p-flop-alt", "flop")
POLL_SECONDS = 0.25

Watch = Callable[[dict[str, Snapshot | None]], None]


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
        watch: called again and again with what every daemon says of itself, by site.

    Raises:
        FlopError: the settings make no federation, or ``directory`` cannot be used.
        NodeError: a daemon ended with an error; the others finished, and the line says what is left out.
        Interrupted: the user asked to stop; all daemons left cleanly, and what there is was kept.
    """
    _check(settings)
    data = load_data(settings) if data is None else data
    files = RunDirectory(directory, settings, resume)
    if (finished := files.summary()) is not None:
        return finished
    sites = local_sites(settings, data, directory)
    if not (directory / "federation.toml").exists():
        prepare(settings, data, sites, directory)
    started = time.perf_counter()
    _run(Processes(sites), directory, watch)
    summary = collect(settings, data, sites, directory, time.perf_counter() - started)
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


def _run(processes: Processes, directory: Path, watch: Watch | None) -> None:
    with stop_wish() as asked_to_stop:
        processes.start()
        try:
            while processes.alive() and not asked_to_stop():
                if watch is not None:
                    watch(processes.snapshots())
                time.sleep(POLL_SECONDS)
        finally:
            processes.stop()
        if asked_to_stop():
            raise Interrupted(
                f"stopped; every daemon left cleanly and all is kept in {directory}; "
                f"go on with the same command and --out {directory} --resume"
            )
    failed = {name: code for name, code in processes.exit_codes().items() if code != 0}
    if failed:
        logs = {site.name: site.log for site in processes.sites}
        name, code = next(iter(failed.items()))
        raise NodeError(
            f"{len(failed)} of {len(processes.sites)} daemons failed ({', '.join(failed)}); {name} ended with exit "
            f"code {code}, see {logs[name]}; mend this and go on with --out {directory} --resume"
        )
