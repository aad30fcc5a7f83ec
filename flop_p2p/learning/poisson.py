"""Poisson sampling: in every gradient step each record, or each patient, takes part with the same probability."""

from dataclasses import dataclass

import numpy as np

from flop_p2p.config import PrivacySettings
from flop_p2p.errors import ConfigError
from flop_p2p.learning.draws import Draws


@dataclass(frozen=True)
class PoissonSampling:
    """The training samples of a site, grouped by whom differential privacy protects.

    indices: positions in the data set, those of one unit side by side.
    starts: where each unit begins in ``indices``, ``[units]``.
    sizes: samples of each unit, ``[units]``.
    rate: probability with which a unit takes part in a step.
    """

    indices: np.ndarray
    starts: np.ndarray
    sizes: np.ndarray
    rate: float

    @property
    def units(self) -> int:
        """Records or patients."""
        return len(self.starts)

    @property
    def expected(self) -> float:
        """Samples in a step on average."""
        return self.rate * self.units

    def batch(self, draws: Draws, round_index: int, step: int) -> np.ndarray:
        """Positions of one step's samples, perhaps none: one sample, drawn at random, of each unit that takes part."""
        chosen = np.flatnonzero(draws.uniform("sampling", round_index, step, self.units) < self.rate)
        within = draws.uniform("sample of a unit", round_index, step, len(chosen)) * self.sizes[chosen]
        batch: np.ndarray = self.indices[self.starts[chosen] + within.astype(np.int64)]
        return batch


def build_sampling(
    name: str, indices: np.ndarray, patients: np.ndarray | None, privacy: PrivacySettings, batch_size: int
) -> PoissonSampling:
    """The sampling of a site in which a step has ``batch_size`` samples on average.

    Args:
        name: of the site, for errors.
        indices: the site's training samples, int64 ``[training samples]``.
        patients: of all samples of the data set, where the data know them.

    Raises:
        ConfigError: patients are to be protected, and the data know none.
    """
    if privacy.unit == "record":
        starts, sizes = np.arange(len(indices)), np.ones(len(indices), np.int64)
    elif patients is None:
        raise ConfigError(
            f"site {name}: privacy.unit = 'patient', and the data tell no patients; give data.patient_column, or take "
            "unit = 'record'"
        )
    else:
        _, unit, sizes = np.unique(patients[indices].astype(str), return_inverse=True, return_counts=True)
        indices = indices[np.argsort(unit.reshape(-1), kind="stable")]
        starts = np.cumsum(sizes) - sizes
    return PoissonSampling(indices, starts, sizes, min(1.0, batch_size / len(starts)))
