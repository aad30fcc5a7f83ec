"""The attacked federation: what its sites hold before a round, what each would send, and who receives it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from flop_p2p.audit.gradients import Gradient, GradientModel, Weights
from flop_p2p.audit.inversion import PixelRange
from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData
from flop_p2p.learning.objective import Objective
from flop_p2p.simulation import Simulation
from flop_p2p.simulation.methods import METHODS
from flop_p2p.topology import Schedule, build_schedule


@dataclass(frozen=True)
class Victim:
    """A site that is attacked, and by whom.

    attacker: the site that receives its body.
    senders: all whose bodies the attacker receives in this round, the victim first, and the weights that it gives them.
    """

    row: int
    attacker: int
    senders: tuple[tuple[int, float], ...]


class Federation:
    """A simulation that is stopped before a round and looked at. Sites are rows, in the order of their names.

    Attributes:
        samples: those of all sites.
        model: the attacked one, as a function of its weights.
        pixels: the range of the images; None where the samples are rows of a table.

    Raises:
        FlopError: the settings cannot be simulated.
    """

    def __init__(self, settings: ExperimentSettings, data: FederatedData) -> None:
        quiet = settings.model_copy(update={"evaluate_every": 0})
        self._simulation = Simulation(quiet, data, data.sites)
        self._settings, self._data = settings, data
        self.samples = self._simulation.samples
        self.model = GradientModel(self._simulation.blueprint, self.samples.task)
        self._after: dict[int, Weights] = {}
        self._schedule = self._build_schedule()
        self.pixels = self._pixel_range() if data.dataset.is_image else None

    def _pixel_range(self) -> PixelRange:
        figures = [torch.from_numpy(array).view(-1, 1, 1) for array in (self._data.mean, self._data.std)]
        mean, std = (tensor.to(self.samples.inputs.device) for tensor in figures)
        return PixelRange(-mean / std, (1 - mean) / std)

    def _build_schedule(self) -> Schedule | None:
        """Who receives from whom; None where nobody gossips: a server receives from all."""
        settings = self._settings
        if METHODS[settings.method].exchange != "gossip":
            return None
        names, counts = [site.name for site in self._data.sites], [len(site.train) for site in self._data.sites]
        return build_schedule(settings.topology, names, counts, settings.seed)

    @property
    def round(self) -> int:
        """How many rounds were completed."""
        return self._simulation.progress.round

    @property
    def model_name(self) -> str:
        """Of the attacked model."""
        return self._simulation.blueprint.name

    @property
    def sites(self) -> int:
        """How many there are."""
        return len(self._data.sites)

    def name(self, row: int) -> str:
        """Of a site."""
        return self._data.sites[row].name

    def training(self, row: int) -> np.ndarray:
        """The training samples of a site, positions in the data set."""
        return self._data.sites[row].train

    def advance(self, round_index: int) -> Iterator[int]:
        """Complete rounds until ``round_index`` are; yields their count after each."""
        while self.round < round_index:
            self._after = {}
            self._simulation.run_round(lambda: False)
            self._simulation.round_lines()
            yield self.round

    def close(self) -> None:
        """End the simulation."""
        self._simulation.close()

    def before(self, row: int) -> Weights:
        """What a site holds before the round, body and head."""
        state = self._simulation.work.model(row).state_dict()
        return {name: state[name].clone() for name in self.model.names}

    def after(self, row: int) -> Weights:
        """What a site would hold after its own training of this round; its body is what it sends."""
        if row not in self._after:
            work, rows = self._simulation.work, self._simulation.population.trained()
            kept = {name: tensor[row].clone() for name, tensor in rows.items()}
            work.train(row, self.round, METHODS[self._settings.method].phase)
            state = work.model(row).state_dict()
            self._after[row] = {name: state[name].clone() for name in self.model.names}
            for name, tensor in rows.items():
                tensor[row] = kept[name]
        return self._after[row]

    def objective(self, row: int) -> Objective:
        """What a site minimizes."""
        return self._simulation.work.learners[row].objective

    def victim(self, row: int) -> Victim:
        """Who attacks a site: of those that receive its body the one that receives the fewest."""
        others = [other for other in range(self.sites) if other != row]
        if self._schedule is None:
            return Victim(row, others[row % len(others)], ((row, 1.0),))
        matrix = self._schedule.mixing(self.round).toarray()
        receivers = [other for other in others if matrix[other, row] > 0]
        if not receivers:  # of a directed topology that is drawn anew; somebody else receives it in another round
            return Victim(row, others[row % len(others)], ((row, 1.0),))
        attacker = min(receivers, key=lambda other: (np.count_nonzero(matrix[other]), other))
        weights = matrix[attacker]
        senders = [other for other in np.flatnonzero(weights) if other not in (attacker, row)]
        ordered = [row, *(int(sender) for sender in senders)]
        return Victim(row, attacker, tuple((sender, float(weights[sender])) for sender in ordered))

    def batch(self, positions: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Normalized inputs and labels of samples."""
        inputs, labels = self.samples.batch(self.samples.positions(np.asarray(positions, np.int64)))
        return inputs.contiguous(), labels

    def targets(self, labels: Tensor) -> Tensor:
        """Labels as probabilities, float32 ``[n, outputs]``."""
        return labels if labels.dim() == 2 else F.one_hot(labels, self.samples.outputs).float()

    def step(self, row: int, positions: Sequence[int]) -> Gradient:
        """The gradient of one step of a site on these samples, body and head, up to a positive factor.

        Class weights are left out: for single images they are such a factor.
        """
        inputs, labels = self.batch(positions)
        names, prior = self.model.names, self.objective(row).prior
        gradient = self.model.gradient(self.before(row), names, inputs, self.targets(labels), prior)
        return [tensor.detach() for tensor in gradient]
