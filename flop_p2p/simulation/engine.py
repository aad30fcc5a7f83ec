"""The synchronous engine: every site trains, then all bodies are mixed at once as a matrix product."""

import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData, SiteSplit
from flop_p2p.errors import ConfigError
from flop_p2p.learning import Metrics, Phase, Samples, build_blueprint, find_device
from flop_p2p.simulation.checkpoint import Progress, Trained, load_checkpoint, save_manifest, save_parts
from flop_p2p.simulation.crew import Job, build_crew, usable_workers
from flop_p2p.simulation.exchange import build_exchange
from flop_p2p.simulation.methods import METHODS
from flop_p2p.simulation.mixing import consensus_distance
from flop_p2p.simulation.population import Population
from flop_p2p.simulation.ranks import ALONE, Ranks
from flop_p2p.simulation.run_directory import Line
from flop_p2p.simulation.spending import Spending, of_learners
from flop_p2p.simulation.work import Work


@dataclass(frozen=True)
class RoundReport:
    """What a progress display shows after a round.

    accuracy: mean over sites on their own test split, None where this round was not evaluated.
    seconds: since the start of the run, time before an interruption included.
    """

    round: int
    rounds: int
    accuracy: float | None
    seconds: float


class Simulation:
    """One method over the sites of a data set, round by round.

    Of several ranks each holds a part of the sites; what is told of sites is told of all of them, at every rank.

    Args:
        sites: the sites that take part, ascending by name.
        workers: processes that train and evaluate; 0 takes one a core. Figures do not depend on it. Of several ranks
            each is one worker.
        bodies_in: a folder for a file that holds the bodies instead of memory.
        ranks: the processes of the run.
        training_seed: decides the order of samples, dropout, augmentation and noise in place of ``settings.seed``,
            which goes on to decide initial weights and topology.

    Attributes:
        own: positions of the rows that this process holds.

    Raises:
        ConfigError, DataError, ModelError, SplitError, TopologyError: the settings cannot be simulated.
        RunError: so many workers or ranks cannot be had, or the file of the bodies cannot be made.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        data: FederatedData,
        sites: Sequence[SiteSplit],
        *,
        workers: int = 1,
        bodies_in: Path | None = None,
        ranks: Ranks = ALONE,
        training_seed: int | None = None,
    ) -> None:
        self.settings, self.ranks = settings, ranks
        self.method = METHODS[settings.method]
        self.sites = tuple(sites)
        device = find_device(ranks.device(settings.device))
        self.samples = Samples(data, device)
        self.pooled_test = data.pooled_test
        self.class_names = data.dataset.class_names
        counts = [len(site.train) for site in sites]
        shape, outputs = self.samples.sample_shape, self.samples.outputs
        shares_all, differential = self.method.shares == "model", settings.privacy.differential
        self.blueprint = build_blueprint(
            settings.model, shape, outputs, settings.seed, shares_all=shares_all, differential=differential
        )
        self.blueprint.template.to(device)
        self.exchange = build_exchange(self.method, settings, [site.name for site in sites], counts, ranks)
        self.own = self.exchange.placement.own
        self._own_sites = self.sites if self.method.pooled else tuple(self.sites[position] for position in self.own)
        self.population = Population(self.blueprint, len(self.own), settings.training, bodies_in)
        self.population.exchanged = self.exchange.state(self.population.bodies)
        self.work = Work(
            settings if training_seed is None else settings.model_copy(update={"seed": training_seed}),
            self.method,
            self.samples,
            self.blueprint,
            self.population,
            self._own_sites,
            self.pooled_test,
            of=len(self.sites),
        )
        self.names = [learner.name for learner in self.work.learners]
        self.spending = Spending(settings.privacy, self._private_training())
        asked = workers if ranks is ALONE else 1  # connections to other ranks are not to be forked
        self.crew = build_crew(self.work, usable_workers(asked, len(self._own_sites), settings.threads, device))
        self.progress = Progress([0] * self.exchange.participants, last_round=settings.training.rounds)
        self._check_settings()

    def _check_settings(self) -> None:
        if self.method.fine_tunes and self.settings.training.rounds < 2:
            raise ConfigError(f"{self.method.name} trains the head alone in its last round; take --rounds 2 or more")

    def _private_training(self) -> dict[str, tuple[float, int]]:
        """Of all ranks, see `Spending`; nothing without differential privacy, or where nothing is trained."""
        own = of_learners(self.work.learners) if self.method.trains else {}
        return {name: (rate, steps) for some in self.ranks.share(lambda: own) for name, (rate, steps) in some.items()}

    def fingerprint(self) -> str:
        """A SHA-256 of the settings, of who trains and tests on which samples, and of the initial weights."""
        digest = hashlib.sha256(self.settings.model_dump_json().encode())
        for site in self.sites:
            digest.update(site.name.encode())
            for part in (site.train, site.validation, site.test):
                digest.update(part.tobytes())
        for tensor in self.blueprint.template.state_dict().values():
            digest.update(tensor.cpu().numpy().tobytes())
        return digest.hexdigest()

    def resume(self, checkpoint: Path) -> None:
        """Go back to where ``checkpoint`` was written.

        Raises:
            RunError: it is damaged.
        """
        self.progress = load_checkpoint(checkpoint, self.population, self.names)
        self.spending.restore(self.progress)

    def save(self, checkpoint: Path) -> None:
        """Write everything that `resume` needs; all ranks write into the same folder.

        Raises:
            RunError: it cannot be written.
        """
        progress = self.progress
        parts = self.ranks.share(lambda: save_parts(checkpoint, progress, self.population, self.names))
        self.ranks.of_first(lambda: save_manifest(checkpoint, progress, [part for some in parts for part in some]))

    def close(self) -> None:
        """End the worker processes."""
        self.crew.close()

    def run_round(self, pause: Callable[[], bool], on_exchange: Callable[[list[int]], None] | None = None) -> bool:
        """Train every site once and mix; ``pause`` is asked after each site or group.

        Args:
            on_exchange: called before bodies are mixed, while they are what leaves the sites, with the rows held
                here that trained; not called in a round that exchanges nothing.

        Returns:
            True when the round is complete, False when ``pause`` said so before, at whichever rank; calling again
            goes on.

        Raises:
            RunError: a rank was lost.
            TrainingError: training diverged.
        """
        progress, round_index = self.progress, self.progress.round
        if not self._train(round_index, pause):
            return False
        start = time.perf_counter()
        if not self._fine_tunes(round_index):
            silent = self._silent()
            if on_exchange is not None:
                on_exchange([row for row, name in enumerate(self.names) if name in progress.trained])
            self.exchange.mix(self.population.bodies, round_index, silent)
            size = self.exchange.message_bytes(self.population.split.body.parameters, round_index)
            progress.traffic = (self.exchange.messages(round_index, silent) * size + progress.traffic).tolist()
        progress.seconds["mixing"] += time.perf_counter() - start
        self.spending.end_round(progress.trained, progress)
        progress.round += 1
        return True

    def _train(self, round_index: int, pause: Callable[[], bool]) -> bool:
        """Train the sites that did not train yet in this round; False when ``pause`` left some of them over."""
        progress, start = self.progress, time.perf_counter()
        drawn = self.exchange.trains(round_index) if self.method.trains else self.own[:0]
        drawn = np.setdiff1d(drawn, self._silent())
        rows = np.flatnonzero(np.isin(self.own, drawn)).tolist()
        for trained in self.ranks.share(lambda: self._train_own(rows, round_index, pause)):
            progress.trained |= trained
        progress.seconds["training"] += time.perf_counter() - start
        return len(progress.trained) == len(drawn)

    def _silent(self) -> tuple[int, ...]:
        """Positions of the sites whose privacy budget this round would exceed; they are noted down as stopped."""
        names = self.spending.silent()
        for name in names:
            self.progress.stopped.setdefault(name, self.progress.round + 1)
        if not names:
            return ()
        every = self.names if self.method.pooled else [site.name for site in self.sites]
        return tuple(np.flatnonzero(np.isin(every, names)).tolist())

    def _train_own(self, rows: Sequence[int], round_index: int, pause: Callable[[], bool]) -> Trained:
        """Train those of the ``rows`` held here that did not train yet in this round; what came of them, by name."""
        before, trained = self.progress.trained, {}
        groups = [[row for row in group if self.names[row] not in before] for group in self.work.groups(rows)]
        left = [group for group in groups if group]
        for group, results in self.crew.run("train_group", left, round_index, self._phase(round_index)):
            for row, (loss, seconds) in zip(group, results, strict=True):
                trained[self.names[row]] = (loss, seconds)
            if pause():
                self.crew.halt()
        return trained

    def _fine_tunes(self, round_index: int) -> bool:
        return self.method.fine_tunes and round_index == self.progress.last_round - 1

    def _phase(self, round_index: int) -> Phase:
        return "head" if self._fine_tunes(round_index) else self.method.phase

    def stop_early(self) -> None:
        """Make the round just completed the last; a method that fine-tunes still does so."""
        progress = self.progress
        if progress.round < progress.last_round == self.settings.training.rounds:
            progress.last_round = progress.round + self.method.fine_tunes

    def round_lines(self) -> list[Line]:
        """One line a site on the round just completed; evaluated when the settings ask for it."""
        progress = self.progress
        round_number, every = progress.round, self.settings.evaluate_every
        asked = round_number == progress.last_round or (every > 0 and round_number % every == 0)
        start = time.perf_counter()
        distance = self.consensus_distance() if asked else None
        figures = self._evaluate("evaluate") if asked else {}
        lines: list[Line] = []
        bytes_total = self.bytes_total()
        for site in self.sites:
            name = self.names[0] if self.method.pooled else site.name
            loss, seconds = progress.trained.get(name, (None, 0.0))
            found = figures.get(site.name, {"validation": None, "test": None})
            lines.append(
                {
                    "round": round_number,
                    "site": site.name,
                    "train_loss": loss,
                    "validation": found["validation"],
                    "test": found["test"],
                    "consensus_distance": distance,
                    "bytes_total": bytes_total,
                    "epsilon": self.spending.epsilon(name),
                    "seconds": seconds,
                }
            )
        progress.trained = {}
        progress.seconds["evaluation"] += time.perf_counter() - start
        return lines

    def evaluate_pooled(self) -> dict[str, Metrics]:
        """How good each site's own model is on the pooled test split."""
        start = time.perf_counter()
        results = self._evaluate("evaluate_pooled")
        self.progress.seconds["evaluation"] += time.perf_counter() - start
        return {site.name: results[site.name] for site in self.sites}

    def _evaluate(self, job: Job) -> dict[str, Any]:
        """What comes of an evaluation of all sites, by name; each rank evaluates its own."""

        def evaluate_own() -> dict[str, Any]:
            results = self.crew.run(job, range(len(self._own_sites)), self.progress.round)
            return {self._own_sites[position].name: result for position, result in results}

        return {name: result for some in self.ranks.share(evaluate_own) for name, result in some.items()}

    def consensus_distance(self) -> float:
        """Root mean square distance of the bodies of all sites from their mean."""
        return consensus_distance(self.population.bodies, self.ranks)

    def bytes_total(self) -> int:
        """Bytes of bodies sent so far by all participants; each counts once though two take part."""
        return sum(self.progress.traffic) // 2

    def bytes_busiest(self) -> int:
        """Bytes sent plus received so far by the busiest participant, a server included."""
        return max(self.progress.traffic)
