"""Which runs a comparison consists of, and where each one is kept."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flop_p2p.config import ComparisonSettings, ExperimentSettings, GossipSettings
from flop_p2p.errors import ConfigError
from flop_p2p.simulation import METHODS
from flop_p2p.topology import file_sites


@dataclass(frozen=True)
class Arm:
    """One row of the table: a method, and its topology if it gossips."""

    method: str
    topology: str | None

    @property
    def topology_name(self) -> str | None:
        """The topology in short: a file goes by its name without folder and suffix."""
        if self.topology is None or not self.topology.endswith(".toml"):
            return self.topology
        return Path(self.topology).stem

    @property
    def name(self) -> str:
        """Method and topology in letters, digits, dots and dashes, for the names of directories."""
        topology = self.topology_name
        return self.method if topology is None else f"{self.method}-{re.sub(r'[^A-Za-z0-9.]+', '-', topology)}"

    @property
    def label(self) -> str:
        """Method and topology for people."""
        return self.method if self.topology is None else f"{self.method} {self.topology_name}"


@dataclass(frozen=True)
class Run:
    """One method, topology and seed with its own resolved settings and run directory."""

    arm: Arm
    settings: ExperimentSettings
    directory: Path

    @property
    def seed(self) -> int:
        """The seed of this run."""
        return self.settings.seed

    @property
    def name(self) -> str:
        """The run for people, for example ``p2p-flop-ring-seed0``."""
        return self.directory.name


@dataclass(frozen=True)
class Plan:
    """All runs of a comparison below one directory.

    site_topology: the topology whose file names the sites, the same for all runs so that all train on the
        same splits; the one of the settings where no file names them.
    """

    settings: ExperimentSettings
    out: Path
    arms: tuple[Arm, ...]
    site_topology: str

    @property
    def seeds(self) -> range:
        """The seeds, counted up from that of the settings."""
        return range(self.settings.seed, self.settings.seed + self.settings.comparison.seeds)

    def run(self, arm: Arm, seed: int, lr: float) -> Run:
        """The run of ``arm`` that counts."""
        return Run(arm, self.resolved(arm, seed, lr), self.out / "runs" / f"{arm.name}-seed{seed}")

    def grid_run(self, arm: Arm, lr: float) -> Run:
        """The run of ``arm`` with the first seed that tries out the learning rate ``lr``."""
        return Run(arm, self.resolved(arm, self.seeds[0], lr), self.out / "lr-grid" / f"{arm.name}-lr{lr!r}")

    def resolved(self, arm: Arm, seed: int, lr: float) -> ExperimentSettings:
        """The settings of one run; what does not concern it (comparison, gossip, masking) is back at its default."""
        topology = self.site_topology if arm.topology is None else arm.topology
        return self.settings.model_copy(
            update={
                "method": arm.method,
                "seed": seed,
                "topology": self.settings.topology.model_copy(update={"name": topology}),
                "training": self.settings.training.model_copy(update={"lr": lr}),
                "gossip": GossipSettings() if arm.topology is None else self.settings.gossip,
                "privacy": self.settings.privacy.unmasked() if arm.topology is None else self.settings.privacy,
                "comparison": ComparisonSettings(),
            }
        )

    def data_settings(self, seed: int) -> ExperimentSettings:
        """Settings that decide the data which all runs of one seed share."""
        topology = self.settings.topology.model_copy(update={"name": self.site_topology})
        return self.settings.model_copy(update={"seed": seed, "topology": topology})


def build_plan(settings: ExperimentSettings, out: Path) -> Plan:
    """The plan of a comparison: each gossip method on each topology, every other method once.

    Raises:
        ConfigError: a learning-rate grid without validation data, or topologies that cannot be told apart
            or that name different sites.
        TopologyError: a topology file is wrong.
    """
    comparison = settings.comparison
    if comparison.lr_grid and settings.data.split[1] == 0:
        raise ConfigError(
            "--lr-grid chooses on validation data, and --split leaves none; give it a part, such as 0.7,0.1,0.2"
        )
    arms = tuple(
        Arm(method, topology)
        for method in comparison.methods
        for topology in (comparison.topologies if METHODS[method].exchange == "gossip" else (None,))
    )
    _check_distinct(arms)
    gossiped = [topology for topology in comparison.topologies if any(arm.topology == topology for arm in arms)]
    return Plan(settings, out, arms, _site_topology(settings, gossiped))


def _check_distinct(arms: Sequence[Arm]) -> None:
    known: dict[str, Arm] = {}
    for arm in arms:
        other = known.setdefault(arm.name, arm)
        if other is not arm:
            raise ConfigError(
                f"--topologies: {other.topology} and {arm.topology} would share the directory "
                f"{arm.name}; rename one of the files"
            )


def _site_topology(settings: ExperimentSettings, topologies: Sequence[str]) -> str:
    """The topology from whose file the sites take their names."""
    named = {}
    for name in topologies:
        sites = file_sites(settings.topology.model_copy(update={"name": name}))
        if sites is not None:
            named[name] = sites
    for name, sites in named.items():
        first = next(iter(named))
        if set(sites) != set(named[first]):
            raise ConfigError(f"--topologies: {first} and {name} name different sites; compare them apart")
    return next(iter(named), settings.topology.name)
