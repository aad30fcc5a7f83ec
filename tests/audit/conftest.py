"""A small federation to attack: bundled digits at four hospitals, an MLP, before any round."""

from collections.abc import Iterator
from typing import Any

import pytest

from flop_p2p.audit.federation import Federation
from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.simulation import load_data

SMALL = {
    "data.limit_images": 200,
    "data.sites": 4,
    "data.partition": "dirichlet:0.5",
    "model.name": "mlp",
    "training.rounds": 3,
    "training.lr": 0.05,
    "audit.attacks": "inversion,labels",
    "audit.inversion_images": 2,
    "audit.inversion_batches": "1",
    "audit.inversion_iterations": 3,
    "audit.label_images": 4,
    "audit.label_iterations": 2,
    "audit.label_others": 1,
}


@pytest.fixture
def audited() -> Any:
    """A factory of settings of a small audit; keyword arguments use ``__`` for dots."""

    def make(**overrides: Any) -> ExperimentSettings:
        return load_experiment(overrides=SMALL | {key.replace("__", "."): value for key, value in overrides.items()})

    return make


@pytest.fixture
def federation(audited: Any) -> Iterator[Any]:
    """A factory of federations with the settings of ``audited``."""
    made = []

    def make(**overrides: Any) -> Federation:
        settings = audited(**overrides)
        made.append(Federation(settings, load_data(settings)))
        return made[-1]

    yield make
    for one in made:
        one.close()
