"""What is computed for one site or a group of them: training and evaluation. Every worker process can do all of it."""

import time
from collections.abc import Sequence

import numpy as np
from torch import nn

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import SiteSplit
from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.learning import (
    Blueprint,
    Learner,
    Lockstep,
    Metrics,
    Phase,
    PrivateLearner,
    Samples,
    SeededDraws,
    Trainee,
    predict,
    score,
    steps_of_round,
)
from flop_p2p.simulation.grouping import sites_at_once
from flop_p2p.simulation.methods import Method
from flop_p2p.simulation.population import Population, Workbench


class Work:
    """The jobs of a simulation, each for one site or a group. What they return is plain enough to be sent by a worker.

    Args:
        sites: those that take part, in the order of the population's rows; with a pooled method there is one row.
        pooled_test: positions of the pooled test split.

    Attributes:
        learners: one for each row of the population.

    Raises:
        ConfigError: sites cannot train at once as the settings ask.
    """

    def __init__(
        self,
        settings: ExperimentSettings,
        method: Method,
        samples: Samples,
        blueprint: Blueprint,
        population: Population,
        sites: Sequence[SiteSplit],
        pooled_test: np.ndarray,
        of: int,
    ) -> None:
        self._settings, self._method, self._samples, self._blueprint = settings, method, samples, blueprint
        self._sites, self._pooled_test, self._of = sites, pooled_test, of
        self._bench = Workbench(population, blueprint, settings.training)
        self.learners = self._build_learners()
        self._at_once, self._lockstep = self._find_lockstep()
        self._predicted: tuple[int, int, np.ndarray | None] | None = None

    def _build_learners(self) -> list[Learner]:
        trainee = self._bench.trainee
        if self._method.pooled:
            everything = np.concatenate([site.train for site in self._sites])
            steps = sum(steps_of_round(len(site.train), self._settings.training) for site in self._sites)
            return [self._learner("pooled", trainee, everything, steps)]
        return [self._learner(site.name, trainee, site.train) for site in self._sites]

    def _learner(self, name: str, trainee: Trainee, indices: np.ndarray, steps: int | None = None) -> Learner:
        settings = self._settings
        given = (name, trainee, self._samples, indices, settings.training, settings.seed, steps)
        if settings.privacy.differential and self._method.trains:
            draws = SeededDraws(settings.seed, name)
            return PrivateLearner(*given, privacy=settings.privacy, draws=draws)
        return Learner(*given)

    def _find_lockstep(self) -> tuple[int, Lockstep | None]:
        """How many sites train at once, and what trains them if more than one."""
        settings, trainee = self._settings, self._bench.trainee
        asked = settings.sites_at_once
        if settings.privacy.differential:
            if asked > 1:
                raise ConfigError(
                    f"--sites-at-once {asked}: with differential privacy sites train one after the other; leave it out"
                )
            return 1, None
        at_once = asked or sites_at_once(trainee.model, self._samples.inputs.device, self._of)
        if at_once == 1 or len(self.learners) == 1 or not self._method.trains:
            return 1, None
        try:
            return at_once, Lockstep(trainee, self._samples, settings.training)
        except ConfigError:
            if asked:
                raise
            return 1, None

    def groups(self, rows: Sequence[int]) -> list[list[int]]:
        """The rows that train at once, those that take longest first, so that all workers end together.

        It does not depend on the number of workers, as figures would through rounding.
        """
        order = sorted(rows, key=lambda row: (-self.learners[row].steps, -self.learners[row].count, row))
        return [order[start : start + self._at_once] for start in range(0, len(order), self._at_once)]

    def newcomer(self, site: SiteSplit, model: nn.Module) -> Learner:
        """A learner of a site outside the population."""
        trainee = Trainee(model, self._blueprint.head, self._settings.training)
        return self._learner(site.name, trainee, site.train)

    def model(self, row: int) -> nn.Module:
        """The model of one row of the population, until another is asked for."""
        return self._bench.place(row)

    def train(self, row: int, round_index: int, phase: Phase) -> tuple[float, float]:
        """Train one row for a round, counted from 0: mean loss, and seconds.

        Raises:
            TrainingError: training diverged.
        """
        start = time.perf_counter()
        self.model(row)
        loss = self.learners[row].train(round_index, phase)
        return loss, time.perf_counter() - start

    def train_group(self, rows: Sequence[int], round_index: int, phase: Phase) -> list[tuple[float, float]]:
        """As `train`, for the rows of a group at once; the seconds of each are its part of those of the group.

        Raises:
            TrainingError: training diverged.
        """
        if self._lockstep is None or len(rows) == 1:
            return [self.train(row, round_index, phase) for row in rows]
        start = time.perf_counter()
        learners = [self.learners[row] for row in rows]
        with self._bench.stack(rows) as stack:
            losses = self._lockstep.train(learners, stack, round_index, phase)
        seconds = (time.perf_counter() - start) / len(rows)
        return [(loss, seconds) for loss in losses]

    def evaluate(self, position: int, round_index: int) -> dict[str, Metrics | None]:
        """How good the model of one site is on its own ``validation`` and ``test`` samples; None where there are none.

        Raises:
            TrainingError: the model predicts NaN or infinite values.
        """
        site = self._sites[position]
        parts = {"validation": site.validation, "test": site.test}
        model = self._model_of(position)
        return {
            part: self.evaluate_model(model, site, indices, round_index) if len(indices) else None
            for part, indices in parts.items()
        }

    def evaluate_pooled(self, position: int, round_index: int) -> Metrics:
        """How good the model of one site is on the pooled test split.

        Raises:
            TrainingError: the model predicts NaN or infinite values.
        """
        site, row = self._sites[position], self._row(position)
        known = self._predicted
        if known is None or known[:2] != (row, round_index):  # sites may have one model in common
            logits = self._predict(self._model_of(position), site, self._pooled_test, round_index)
            known = self._predicted = (row, round_index, logits)
        return self._score(known[2], site, self._pooled_test)

    def evaluate_model(self, model: nn.Module, site: SiteSplit, indices: np.ndarray, round_index: int) -> Metrics:
        """How good ``model`` is on the samples at ``indices``, with the class prior of ``site``.

        Raises:
            TrainingError: the model predicts NaN or infinite values.
        """
        return self._score(self._predict(model, site, indices, round_index), site, indices)

    def _row(self, position: int) -> int:
        return 0 if self._method.pooled else position

    def _model_of(self, position: int) -> nn.Module:
        return self.model(self._row(position))

    def _score(self, logits: np.ndarray | None, site: SiteSplit, indices: np.ndarray) -> Metrics:
        return score(logits, self._samples, indices, site.train, self._settings.training)

    def _predict(self, model: nn.Module, site: SiteSplit, indices: np.ndarray, round_index: int) -> np.ndarray | None:
        """The logits of a model; None for the method that has none to ask."""
        if not self._method.trains:
            return None
        try:
            return predict(model, self._samples, indices)
        except TrainingError as error:
            raise TrainingError(f"site {site.name}, round {round_index}: {error}") from error
