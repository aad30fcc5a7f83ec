"""Small experiments on bundled data."""

from typing import Any

import pytest

from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.simulation import Simulation, load_data


@pytest.fixture
def experiment() -> Any:
    """A factory of settings: 200 digits at 4 sites, an MLP, 3 rounds; keyword arguments use ``__`` for dots."""

    def make(**overrides: Any) -> ExperimentSettings:
        values = {
            "data.limit_images": 200,
            "data.sites": 4,
            "model.name": "mlp",
            "training.rounds": 3,
            "training.lr": 0.05,
        }
        values |= {key.replace("__", "."): value for key, value in overrides.items()}
        return load_experiment(overrides=values)

    return make


@pytest.fixture
def simulation(experiment: Any) -> Any:
    """A factory of simulations with the settings of ``experiment``."""

    def make(**overrides: Any) -> Simulation:
        settings = experiment(**overrides)
        data = load_data(settings)
        return Simulation(settings, data, data.sites)

    return make
