"""Settings: frozen pydantic models of `experiment.toml`, with unknown keys refused."""

from flop_p2p.config.base import Settings, first_difference, read_toml, validate
from flop_p2p.config.data import DataSettings
from flop_p2p.config.experiment import PRESETS, ComparisonSettings, ExperimentSettings, load_experiment
from flop_p2p.config.model import ModelSettings
from flop_p2p.config.topology import TopologySettings
from flop_p2p.config.training import TrainingSettings, learning_rate_factor

__all__ = [
    "PRESETS",
    "ComparisonSettings",
    "DataSettings",
    "ExperimentSettings",
    "ModelSettings",
    "Settings",
    "TopologySettings",
    "TrainingSettings",
    "first_difference",
    "learning_rate_factor",
    "load_experiment",
    "read_toml",
    "validate",
]
