"""Worlds: the same federation trained again and again, each time on another half of every site's records."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData, SiteSplit
from flop_p2p.data.dataset import Indices
from flop_p2p.errors import DataError
from flop_p2p.seeding import derive, derive_int
from flop_p2p.simulation import Simulation


@dataclass(frozen=True)
class Candidates:
    """The records of one site that may or may not be members, and in which worlds they are.

    indices: positions in the data set, int64 ``[candidates]``.
    patients: a number for the patient of each, or for the record itself where patients are not known, int64
        ``[candidates]``. The records of a patient are members together.
    member: bool ``[worlds, candidates]``. World 2k + 1 has those as members that world 2k has not.
    """

    site: str
    indices: Indices
    patients: Indices
    member: np.ndarray

    def split(self, world: int) -> SiteSplit:
        """The site in one world: it trains on the members, and the others are its test samples."""
        member = self.member[world]
        return SiteSplit(self.site, self.indices[member], self.indices[:0], self.indices[~member])


@dataclass(frozen=True)
class World:
    """What came of one federation.

    published: the last body that left each site, trained and not yet mixed, ``[sites, parameters]``.
    accuracy: of each site's own model after the last round, on its members and on the others.
    """

    simulation: Simulation
    published: Tensor
    accuracy: tuple[tuple[float, float], ...]

    @property
    def heads(self) -> Tensor:
        """The head that each site keeps, ``[sites, head parameters]``; none where the full model is shared."""
        return self.simulation.population.heads


def draw_candidates(data: FederatedData, worlds: int, seed: int) -> tuple[Candidates, ...]:
    """All records of every site, with the worlds in which they are members: half of them, drawn by ``seed``.

    Args:
        worlds: an even number.

    Raises:
        DataError: a site has fewer than two patients, or fewer than two records.
    """
    found = []
    for site in data.sites:
        indices = np.sort(np.concatenate([site.train, site.validation, site.test]))
        known = data.dataset.patients
        names = indices if known is None else known[indices]
        patients = np.unique(names, return_inverse=True)[1].reshape(-1)
        if patients.max() < 1:
            raise DataError(
                f"site {site.name} has records of one patient only, and membership inference needs members and others; "
                "leave it out with --exclude-site or --min-site-images"
            )
        draw = derive(seed, "membership", site.name)
        pairs = [_half(patients, draw) for _ in range(worlds // 2)]
        member = np.stack([half for first in pairs for half in (first, ~first)])
        found.append(Candidates(site.name, indices, patients, member))
    return tuple(found)


def _half(patients: Indices, draw: np.random.Generator) -> np.ndarray:
    """Half of the records, patients whole: those of the next one go where fewer are. Each patient by even chance."""
    sizes = np.bincount(patients)
    first = np.zeros(len(sizes), bool)
    ahead = 0
    for patient in draw.permutation(len(sizes)):
        first[patient] = ahead <= 0
        ahead += sizes[patient] if first[patient] else -sizes[patient]
    if draw.random() < 0.5:
        first = ~first
    half: np.ndarray = first[patients]
    return half


def train_world(
    settings: ExperimentSettings, data: FederatedData, candidates: Sequence[Candidates], world: int, workers: int = 1
) -> World:
    """Train one federation from start to end.

    Initial weights and topology are those of ``settings.seed``, which neighbours know; the order of samples, dropout,
    augmentation and noise are drawn anew in each world.

    Raises:
        FlopError: the settings cannot be simulated, or training diverged.
    """
    sites = [site.split(world) for site in candidates]
    own_seed = derive_int(settings.seed, "membership training", world)
    simulation = Simulation(settings, data, sites, workers=workers, training_seed=own_seed)
    bodies = simulation.population.bodies
    published = bodies.clone()

    def keep(trained: list[int]) -> None:
        published[trained] = bodies[trained]

    with closing(simulation):
        for _ in range(settings.training.rounds):
            simulation.run_round(lambda: False, keep)
            simulation.progress.trained = {}
        accuracy = tuple(_accuracy(simulation, position) for position in range(len(sites)))
    return World(simulation, published, accuracy)


def _accuracy(simulation: Simulation, position: int) -> tuple[float, float]:
    site, work = simulation.sites[position], simulation.work
    model = work.model(position)
    members, others = (
        work.evaluate_model(model, site, part, simulation.progress.round)["accuracy"]
        for part in (site.train, site.test)
    )
    return members, others
