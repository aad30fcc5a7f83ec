"""One run from settings to a finished run directory."""

import time
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData, SiteSplit, load_federated
from flop_p2p.errors import Interrupted, RunError
from flop_p2p.simulation.engine import RoundReport, Simulation
from flop_p2p.simulation.interrupt import stop_wish
from flop_p2p.simulation.late import draw_late_sites, join_late
from flop_p2p.simulation.ranks import ALONE, Ranks
from flop_p2p.simulation.run_directory import RunDirectory
from flop_p2p.simulation.summary import final_round, has_stalled, summarize
from flop_p2p.topology import file_sites

CHECKPOINT_SECONDS = 30.0
CHECKPOINT_FACTOR = 10  # a checkpoint that takes long is written less often


def load_data(settings: ExperimentSettings) -> FederatedData:
    """The data of a simulation; sites take the names of a topology file that names them.

    Raises:
        DataError: the data cannot be read or partitioned as asked.
    """
    names = file_sites(settings.topology)
    data = settings.data
    if names is not None and "sites" not in data.model_fields_set:
        data = data.model_copy(update={"sites": len(names)})
    return load_federated(data, settings.seed, names)


def run_simulation(
    settings: ExperimentSettings,
    directory: Path,
    *,
    data: FederatedData | None = None,
    resume: bool = False,
    save_models: bool = True,
    workers: int = 0,
    bodies_in: Path | None = None,
    ranks: Ranks = ALONE,
    on_round: Callable[[RoundReport], None] | None = None,
    on_remark: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Simulate one method, topology and seed, write ``directory`` and return its summary.

    Args:
        data: what `load_data` gives for these settings, if it was loaded already.
        resume: go on with an interrupted run; the result is that of an uninterrupted one.
        workers: processes that train and evaluate; 0 takes one a core. Figures do not depend on it.
        bodies_in: a folder for a file that holds the bodies instead of memory while the run lasts.
        ranks: the processes of the run; all of them call this, with the same arguments.
        on_round: called after each round.
        on_remark: called before the first one with what the user should know of the model, if anything.

    Raises:
        FlopError: the settings cannot be simulated, or ``directory`` cannot be used.
        Interrupted: the user asked to stop; what there is was kept.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        with ranks.together():  # before the directory is made: settings that cannot run leave none behind
            data = load_data(settings) if data is None else data
            present, late = draw_late_sites(settings, data.sites)
            simulation = Simulation(settings, data, present, workers=workers, bodies_in=bodies_in, ranks=ranks)
        _check_same_beginning(simulation)
        files = RunDirectory(directory, settings, resume, ranks)
        if simulation.blueprint.remark is not None and on_remark is not None:
            on_remark(simulation.blueprint.remark)
        with closing(simulation):
            return files.summary() or _Run(simulation, files).complete(late, save_models, on_round)
    finally:
        torch.set_num_threads(threads)


def _check_same_beginning(simulation: Simulation) -> None:
    """Refuse ranks that would not compute parts of the same run.

    Raises:
        RunError: settings, data or initial models differ.
    """
    ranks = simulation.ranks
    if ranks.count > 1 and len(set(ranks.share(simulation.fingerprint))) > 1:
        raise RunError("the processes have different settings, data or initial weights; give all the same files")


class _Run:
    """A simulation and the directory that keeps what it does."""

    def __init__(self, simulation: Simulation, directory: RunDirectory) -> None:
        self.simulation = simulation
        self.directory = directory
        if simulation.ranks.of_first(directory.checkpoint.exists):
            with simulation.ranks.together():
                simulation.resume(directory.checkpoint)
        self._lines = directory.metrics(simulation.progress.round * len(simulation.sites))
        self._lines = [line for line in self._lines if _is_evaluated(line)]
        self._mark = self._saved = time.perf_counter()
        self._save_seconds = 0.0

    def complete(
        self, late: Sequence[SiteSplit], save_models: bool, on_round: Callable[[RoundReport], None] | None
    ) -> dict[str, Any]:
        """Run the rounds that are left and write what a finished run leaves behind."""
        with stop_wish() as asked_to_stop:
            while self.simulation.progress.round < self.simulation.progress.last_round:
                if self.simulation.run_round(lambda: asked_to_stop() or self._is_checkpoint_due()):
                    report = self._report()
                    if on_round is not None:
                        on_round(report)
                wishes = self.simulation.ranks.share(lambda: [asked_to_stop(), self._is_checkpoint_due()])
                stop, save = map(any, zip(*wishes, strict=True))
                if stop:
                    self._stop()
                if save:
                    self._save()
        simulation = self.simulation
        pooled = simulation.evaluate_pooled()
        late_metrics = join_late(simulation, late)
        if save_models:
            names = simulation.names if simulation.method.pooled else [site.name for site in simulation.sites]
            own = [int(position) for position in simulation.own]
            self.directory.save_models(simulation.blueprint.split, names, own, simulation.work.model)
        self._tick()
        summary = summarize(simulation, self._lines, pooled, late_metrics)
        self.directory.finish(summary)
        return summary

    def _report(self) -> RoundReport:
        simulation = self.simulation
        lines = simulation.round_lines()
        self._tick()
        self._lines += [line for line in lines if _is_evaluated(line)]
        self.directory.add_metrics(lines)
        if has_stalled(self._lines, simulation.settings.training.early_stopping):
            simulation.stop_early()
        tested = final_round(lines, "test").values()
        accuracy = sum(metrics["accuracy"] for metrics in tested) / len(tested) if tested else None
        progress = simulation.progress
        return RoundReport(progress.round, progress.last_round, accuracy, progress.seconds["total"])

    def _tick(self) -> None:
        now = time.perf_counter()
        self.simulation.progress.seconds["total"] += now - self._mark
        self._mark = now

    def _is_checkpoint_due(self) -> bool:
        return time.perf_counter() - self._saved > max(CHECKPOINT_SECONDS, CHECKPOINT_FACTOR * self._save_seconds)

    def _save(self) -> None:
        self._tick()
        start = time.perf_counter()
        self.simulation.save(self.directory.checkpoint)
        self._saved = time.perf_counter()
        self._save_seconds = self._saved - start

    def _stop(self) -> None:
        self._save()
        progress, path = self.simulation.progress, self.directory.path
        raise Interrupted(
            f"stopped after {progress.round} of {progress.last_round} rounds; all is kept in {path}; "
            f"go on with the same command and --out {path} --resume"
        )


def _is_evaluated(line: dict[str, Any]) -> bool:
    """Whether the summary needs the line; of many sites and rounds the others are many."""
    return line["validation"] is not None or line["test"] is not None
