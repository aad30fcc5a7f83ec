"""Runs a comparison: the plan, its runs one after the other, resumption, and `comparison.json`."""

import functools
import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from flop_p2p.comparison.checks import check
from flop_p2p.comparison.directory import CONFIG, RESULT, check_directory, write_config
from flop_p2p.comparison.grid import GridOutcome, grid_runs, search
from flop_p2p.comparison.plan import Arm, Plan, Run, build_plan
from flop_p2p.comparison.results import Comparison, Record, evaluate, read_record, to_json
from flop_p2p.config import ExperimentSettings, read_toml
from flop_p2p.data import FederatedData
from flop_p2p.errors import FlopError, Interrupted
from flop_p2p.simulation import RoundReport, load_data, run_simulation
from flop_p2p.writing import write_text

Simulate = Callable[..., dict[str, Any]]  # called as `flop_p2p.simulation.run_simulation` is


class Watcher(Protocol):
    """Told what happens, to show it."""

    def plan(self, runs: int, rounds: int) -> None:
        """``runs`` runs, grid included, of ``rounds`` rounds each are about to begin."""

    def start(self, run: Run) -> None:
        """A run begins, or goes on."""

    def round(self, run: Run, report: RoundReport) -> None:
        """A round of a run is over."""

    def finish(self, run: Run, summary: dict[str, Any] | None, kept: bool) -> None:
        """A run is over; ``kept`` when it was finished before, and without a summary when it failed."""


class Silent:
    """A watcher that shows nothing."""

    def plan(self, runs: int, rounds: int) -> None:
        """Nothing."""

    def start(self, run: Run) -> None:
        """Nothing."""

    def round(self, run: Run, report: RoundReport) -> None:
        """Nothing."""

    def finish(self, run: Run, summary: dict[str, Any] | None, kept: bool) -> None:
        """Nothing."""


def compare(
    settings: ExperimentSettings,
    out: Path,
    *,
    resume: bool = False,
    watcher: Watcher | None = None,
    simulate: Simulate = run_simulation,
    load: Callable[[ExperimentSettings], FederatedData] = load_data,
) -> Comparison:
    """Run every method, topology and seed of ``settings.comparison`` and write `comparison.json` into ``out``.

    Each run lies in ``out/runs``, those of the learning-rate grid in ``out/lr-grid``; models are not kept.
    All runs of a seed share data, splits and initial weights.

    Args:
        resume: go on with the comparison in ``out``: finished runs are kept as they are. More seeds, methods
            or topologies than before may be asked for; other settings are refused.
        simulate, load: how a run is simulated and its data loaded.

    Raises:
        FlopError: a run cannot begin or failed, or ``out`` cannot be used.
        Interrupted: the user stopped it; what there is was kept.
    """
    plan = build_plan(settings, out)
    check_directory(plan, resume)
    session = _Session(plan, watcher or Silent(), simulate, functools.lru_cache(maxsize=1)(load))
    try:
        check(plan, session.data)
        write_config(plan)
        records, grid = session.run_all()
    except (Interrupted, KeyboardInterrupt) as stop:
        raise Interrupted(_how_to_go_on(session)) from stop
    comparison = evaluate(settings, records, grid)
    write_text(out / RESULT, json.dumps(to_json(comparison), indent=2, allow_nan=False) + "\n")
    return comparison


class _Session:
    """The runs of one plan, executed in order."""

    def __init__(
        self,
        plan: Plan,
        watcher: Watcher,
        simulate: Simulate,
        load: Callable[[ExperimentSettings], FederatedData],
    ) -> None:
        self.plan = plan
        self.finished = 0
        self._watcher = watcher
        self._simulate = simulate
        self._load = load
        self._grid = grid_runs(plan)
        self.total = len(plan.arms) * len(plan.seeds) + sum(map(len, self._grid.values()))

    def data(self, seed: int) -> FederatedData:
        """The data that all runs of one seed share; the last one asked for is kept."""
        return self._load(self.plan.data_settings(seed))

    def run_all(self) -> tuple[list[Record], dict[Arm, GridOutcome]]:
        """The grid first, then all methods and topologies seed by seed."""
        plan = self.plan
        self._watcher.plan(self.total, plan.settings.training.rounds)
        grid = {arm: search(arm, runs, self._execute) for arm, runs in self._grid.items()}
        rates = {arm: grid[arm].chosen if arm in grid else plan.settings.training.lr for arm in plan.arms}
        records = []
        for seed in plan.seeds:
            for arm in plan.arms:
                run = plan.run(arm, seed, rates[arm])
                self._execute(run)
                records.append(read_record(run))
        return records, grid

    def _execute(self, run: Run) -> dict[str, Any]:
        """The summary of ``run``, from disk if it is finished; the error of a failed one names it."""
        self._watcher.start(run)
        summary = _finished(run)
        kept = summary is not None
        try:
            if summary is None:
                summary = self._simulate(
                    run.settings,
                    run.directory,
                    data=self.data(run.seed),
                    resume=run.directory.exists(),
                    save_models=False,
                    on_round=lambda report: self._watcher.round(run, report),
                )
        except Interrupted:
            raise
        except FlopError as error:
            self._watcher.finish(run, None, kept=False)
            raise type(error)(f"{run.name}: {error}") from error
        self.finished += 1
        self._watcher.finish(run, summary, kept)
        return summary


def _finished(run: Run) -> dict[str, Any] | None:
    """The summary of a run that is finished and has the very same settings; None otherwise."""
    config, summary = run.directory / "config.toml", run.directory / "summary.json"
    if not summary.exists() or not config.exists():
        return None
    if read_toml(config) != run.settings.model_dump(mode="json", exclude_none=True):
        return None
    return read_record(run).summary


def _how_to_go_on(session: _Session) -> str:
    out = session.plan.out
    if not (out / CONFIG).exists():
        return "stopped before the first run; nothing was written"
    return (
        f"stopped after {session.finished} of {session.total} runs; all is kept in {out}; "
        f"go on with: flop-p2p compare {shlex.quote(str(out / CONFIG))} --out {shlex.quote(str(out))} --resume"
    )
