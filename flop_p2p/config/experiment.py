"""Settings of a simulation or comparison: `experiment.toml`, presets, and what flags override."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from flop_p2p.config.audit import AuditSettings
from flop_p2p.config.base import Settings, merge, nested, read_toml, validate
from flop_p2p.config.data import DataSettings
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.config.model import ModelSettings
from flop_p2p.config.privacy import PrivacySettings, check_differential, check_masked_numbers
from flop_p2p.config.topology import TopologySettings
from flop_p2p.config.training import TrainingSettings, check_one_correction
from flop_p2p.errors import ConfigError

PRESETS = ("quick", "flop-paper")

MethodName = Literal[
    "majority", "local", "pooled", "fedavg", "fedavg-ft", "flop", "dfedavg", "p2p-flop", "p2p-flop-alt"
]


class ComparisonSettings(Settings):
    """What `flop-p2p compare` runs beside the settings that all its runs share."""

    methods: tuple[MethodName, ...] = Field(
        ("local", "fedavg", "flop", "p2p-flop"), min_length=1, description="methods to compare"
    )
    topologies: tuple[str, ...] = Field(("ring",), min_length=1, description="topologies of the gossip methods")
    seeds: int = Field(5, ge=1, description="number of seeds, counted up from --seed")
    lr_grid: tuple[Annotated[float, Field(gt=0)], ...] = Field(
        (), description="learning rates to choose from on validation data, for each method by itself"
    )
    target_accuracy: float | None = Field(
        None,
        gt=0,
        le=1,
        description="accuracy whose first round is reported; default that of flop less one point",
    )

    @field_validator("methods", "topologies", "lr_grid", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("methods", "topologies", "lr_grid")
    @classmethod
    def _named_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(value)) < len(value):
            raise ValueError("the same one is given twice")
        return value


class ExperimentSettings(Settings):
    """Everything that decides a simulation. The same settings and seed give the same `metrics.jsonl`."""

    method: MethodName = Field("p2p-flop", description="what to simulate")
    seed: int = Field(0, ge=0, description="decides partition, splits, initial weights, batches and schedules")
    device: str = Field("cpu", description="cpu or cuda")
    threads: int = Field(1, ge=1, description="torch threads; more pay only for large models")
    sites_at_once: int = Field(
        0, ge=0, description="sites that train in one call of PyTorch; 1 is one after the other, 0 what pays"
    )
    evaluate_every: int = Field(1, ge=0, description="rounds between evaluations; 0 evaluates after the last only")
    late_sites: int = Field(0, ge=0, description="sites that join after training and train only their head")
    data: DataSettings = DataSettings()
    model: ModelSettings = ModelSettings()
    topology: TopologySettings = TopologySettings()
    training: TrainingSettings = TrainingSettings()
    gossip: GossipSettings = GossipSettings()
    privacy: PrivacySettings = PrivacySettings()
    comparison: ComparisonSettings = ComparisonSettings()
    audit: AuditSettings = AuditSettings()

    @model_validator(mode="after")
    def _settings_go_together(self) -> "ExperimentSettings":
        training = self.training
        check_one_correction(training)
        check_differential(self.privacy, self.model, training)
        check_masked_numbers(self.privacy, self.gossip)
        if training.early_stopping and (self.data.split[1] == 0 or self.evaluate_every == 0):
            raise ValueError(
                "training.early_stopping goes by validation accuracy over rounds; "
                "give data.split a validation part and leave evaluate_every above 0"
            )
        return self


def load_experiment(
    path: Path | None = None, preset: str | None = None, overrides: Mapping[str, Any] | None = None
) -> ExperimentSettings:
    """Settings from a preset, then `experiment.toml`, then overrides such as ``{"training.lr": 0.1}``.

    Raises:
        ConfigError: an unknown preset or key, or a value out of range; one line that names it.
    """
    values: dict[str, Any] = {}
    origin = "command line"
    if preset is not None:
        values = _read_preset(preset)
        origin = f"preset {preset}"
    if path is not None:
        merge(values, read_toml(path))
        origin = str(path)
    if values:
        validate(ExperimentSettings, values, origin)
    merge(values, nested(overrides or {}))
    return validate(ExperimentSettings, values, "command line" if overrides else origin)


def _read_preset(name: str) -> dict[str, Any]:
    if name not in PRESETS:
        raise ConfigError(f"--preset {name}: no such preset; there are {', '.join(PRESETS)}")
    with resources.as_file(resources.files("flop_p2p.config") / "presets" / f"{name}.toml") as file:
        return read_toml(file)
