"""A federation on disk beside the simulation that it must agree with."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.config.federation import FederationSettings, Member
from flop_p2p.config.site import SiteDataSettings, SiteSettings
from flop_p2p.data import export_site, sample_settings
from flop_p2p.node.worker import SiteModel
from flop_p2p.simulation import Simulation, load_data

SMALL = {"data.limit_images": 150, "data.sites": 3, "data.partition": "dirichlet:1", "training.lr": 0.05}


@dataclass(frozen=True)
class Hospitals:
    """Members of one federation with their data exported, and the settings of a simulation of them."""

    settings: ExperimentSettings
    federation: FederationSettings
    sites: dict[str, SiteSettings]

    def simulation(self) -> Simulation:
        """The simulation of these sites with the same settings."""
        data = load_data(self.settings)
        return Simulation(self.settings, data, data.sites)

    def model(self, name: str = "hospital-1", **changes: Any) -> SiteModel:
        """A fresh model of one site; ``changes`` are of the federation."""
        return SiteModel(self.federation.model_copy(update=changes), self.sites[name])

    def models(self) -> list[SiteModel]:
        """A fresh model of every site, ascending by name."""
        return [self.model(name) for name in self.federation.sites]


@pytest.fixture
def hospitals(tmp_path: Path) -> Callable[..., Hospitals]:
    """Make `Hospitals`: 150 digits at 3 sites, an MLP unless told; keyword arguments use ``__`` for dots."""

    def make(*, server: bool = False, **overrides: Any) -> Hospitals:
        values = {"model.name": "mlp", **SMALL, **{key.replace("__", "."): value for key, value in overrides.items()}}
        settings = load_experiment(overrides=values)
        data = load_data(settings)
        sites = {}
        for site in data.sites:
            path = tmp_path / f"{site.name}.safetensors"
            export_site(data, site, path)
            own = SiteDataSettings(source="safetensors", path=path)
            sites[site.name] = SiteSettings(name=site.name, federation=tmp_path / "federation.toml", data=own)
        members = [Member(name=name, curve_key=key(n), signing_key=f"{n:064x}") for n, name in enumerate(sites)]
        if server:
            members.append(Member(name="server", role="server", curve_key=key(9), signing_key="f" * 64))
            sites["server"] = SiteSettings(name="server", federation=tmp_path / "federation.toml")
        federation = FederationSettings(
            name="test",
            method=settings.method,  # type: ignore[arg-type]
            seed=settings.seed,
            samples=sample_settings(data),
            model=settings.model,
            topology=settings.topology,
            training=settings.training,
            gossip=settings.gossip,
            privacy=settings.privacy,
            members=tuple(members),
        )
        return Hospitals(settings, federation, sites)

    return make


def key(number: int) -> str:
    return f"{number}" * 40
