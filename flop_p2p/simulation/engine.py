"""The synchronous engine: every site trains, then all bodies are mixed at once as a matrix product."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from torch import nn

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData, SiteSplit
from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.learning import (
    Learner,
    Metrics,
    Phase,
    Samples,
    build_blueprint,
    find_device,
    predict,
    score,
    steps_of_round,
)
from flop_p2p.simulation.checkpoint import Progress, load_checkpoint, save_checkpoint
from flop_p2p.simulation.exchange import build_exchange
from flop_p2p.simulation.methods import METHODS
from flop_p2p.simulation.mixing import consensus_distance
from flop_p2p.simulation.population import Population
from flop_p2p.simulation.run_directory import Line


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

    Args:
        sites: the sites that take part, ascending by name.

    Raises:
        ConfigError, DataError, ModelError, SplitError, TopologyError: the settings cannot be simulated.
    """

    def __init__(self, settings: ExperimentSettings, data: FederatedData, sites: Sequence[SiteSplit]) -> None:
        self.settings = settings
        self.method = METHODS[settings.method]
        self.sites = tuple(sites)
        self.samples = Samples(data, find_device(settings.device))
        self.pooled_test = data.pooled_test
        self.class_names = data.dataset.class_names
        counts = [len(site.train) for site in sites]
        shape, outputs = self.samples.sample_shape, self.samples.outputs
        shares_all = self.method.shares == "model"
        self.blueprint = build_blueprint(settings.model, shape, outputs, settings.seed, shares_all=shares_all)
        self.blueprint.template.to(self.samples.inputs.device)
        self.exchange = build_exchange(self.method, settings, [site.name for site in sites], counts)
        self.population = Population(self.blueprint, 1 if self.method.pooled else len(sites))
        self.learners = self._build_learners()
        self.progress = Progress([0] * self.exchange.participants, last_round=settings.training.rounds)
        self._check_settings()

    def _check_settings(self) -> None:
        if self.method.fine_tunes and self.settings.training.rounds < 2:
            raise ConfigError(f"{self.method.name} trains the head alone in its last round; take --rounds 2 or more")

    def _build_learners(self) -> list[Learner]:
        if self.method.pooled:
            everything = np.concatenate([site.train for site in self.sites])
            steps = sum(steps_of_round(len(site.train), self.settings.training) for site in self.sites)
            return [self.learner("pooled", self.population.models[0], everything, steps)]
        models = zip(self.sites, self.population.models, strict=True)
        return [self.learner(site.name, model, site.train) for site, model in models]

    def learner(self, name: str, model: nn.Module, indices: np.ndarray, steps: int | None = None) -> Learner:
        """A learner for ``model`` on the training samples at ``indices``, with the settings of this run."""
        settings = self.settings
        return Learner(name, model, self.blueprint.head, self.samples, indices, settings.training, settings.seed, steps)

    def resume(self, checkpoint: Path) -> None:
        """Go back to where ``checkpoint`` was written.

        Raises:
            RunError: the file is damaged.
        """
        self.progress = load_checkpoint(checkpoint, self.population, [learner.optimizer for learner in self.learners])

    def save(self, checkpoint: Path) -> None:
        """Write everything that `resume` needs."""
        save_checkpoint(checkpoint, self.progress, self.population, [learner.optimizer for learner in self.learners])

    def run_round(self, pause: Callable[[], bool]) -> bool:
        """Train every site once and mix; ``pause`` is asked after each site.

        Returns:
            True when the round is complete, False when ``pause`` said so before; calling again goes on.

        Raises:
            TrainingError: training diverged.
        """
        progress, round_index = self.progress, self.progress.round
        phase = self._phase(round_index)
        training = [int(site) for site in self.exchange.trains(round_index)] if self.method.trains else []
        for site in training[len(progress.losses) :]:
            start = time.perf_counter()
            loss = self.learners[site].train(round_index, phase)
            seconds = time.perf_counter() - start
            progress.losses.append((loss, seconds))
            progress.seconds["training"] += seconds
            if pause():
                return False
        start = time.perf_counter()
        if not self._fine_tunes(round_index):
            self.exchange.mix(self.population.bodies, round_index)
            progress.messages = (self.exchange.messages(round_index) + progress.messages).tolist()
        progress.seconds["mixing"] += time.perf_counter() - start
        progress.round += 1
        return True

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
        trained = dict(zip(self.exchange.trains(round_number - 1).tolist(), progress.losses, strict=False))
        distance = consensus_distance(self.population.bodies) if asked else None
        lines: list[Line] = []
        for position, site in enumerate(self.sites):
            loss, seconds = trained.get(0 if self.method.pooled else position, (None, 0.0))
            lines.append(
                {
                    "round": round_number,
                    "site": site.name,
                    "train_loss": loss,
                    "validation": self.evaluate(position, site.validation) if asked else None,
                    "test": self.evaluate(position, site.test) if asked else None,
                    "consensus_distance": distance,
                    "bytes_total": self.bytes_total(),
                    "seconds": seconds,
                }
            )
        progress.losses = []
        progress.seconds["evaluation"] += time.perf_counter() - start
        return lines

    def evaluate(self, position: int, indices: np.ndarray) -> Metrics | None:
        """How good the model of one site is on the samples at ``indices``; None where there are none."""
        if not len(indices):
            return None
        return self.evaluate_model(self._model(position), self.sites[position], indices)

    def evaluate_all(self, indices: np.ndarray) -> dict[str, Metrics]:
        """How good each site's own model is on the same samples."""
        start = time.perf_counter()
        results = {}
        asked, logits = None, None
        for position, site in enumerate(self.sites):
            model = self._model(position)
            if model is not asked:  # sites may have one model in common
                asked, logits = model, self._predict(model, site, indices)
            results[site.name] = self._score(logits, site, indices)
        self.progress.seconds["evaluation"] += time.perf_counter() - start
        return results

    def evaluate_model(self, model: nn.Module, site: SiteSplit, indices: np.ndarray) -> Metrics:
        """How good ``model`` is on the samples at ``indices``, with the class prior of ``site``."""
        return self._score(self._predict(model, site, indices), site, indices)

    def _model(self, position: int) -> nn.Module:
        return self.population.models[0 if self.method.pooled else position]

    def _score(self, logits: np.ndarray | None, site: SiteSplit, indices: np.ndarray) -> Metrics:
        return score(logits, self.samples, indices, site.train, self.settings.training)

    def _predict(self, model: nn.Module, site: SiteSplit, indices: np.ndarray) -> np.ndarray | None:
        """The logits of a model; None for the method that has none to ask."""
        if not self.method.trains:
            return None
        try:
            return predict(model, self.samples, indices)
        except TrainingError as error:
            raise TrainingError(f"site {site.name}, round {self.progress.round}: {error}") from error

    def bytes_total(self) -> int:
        """Bytes of bodies sent so far by all participants; each counts once though two take part."""
        return sum(self.progress.messages) // 2 * self.population.body_bytes

    def bytes_busiest(self) -> int:
        """Bytes sent plus received so far by the busiest participant, a server included."""
        return max(self.progress.messages) * self.population.body_bytes
