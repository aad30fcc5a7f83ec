"""The files of a local federation: keys, data, `site.toml` of each hospital, and the `federation.toml` they share."""

import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from flop_p2p.config import ExperimentSettings, FederationSettings, Member, SampleSettings, SiteSettings
from flop_p2p.config.site import MetricsSettings, SiteDataSettings
from flop_p2p.data import FederatedData
from flop_p2p.data.site import export_site
from flop_p2p.errors import ConfigError
from flop_p2p.identity.keys import generate
from flop_p2p.identity.members import check_federation
from flop_p2p.simulation.run_directory import file_names
from flop_p2p.topology.files import inline_topology
from flop_p2p.writing import write_text, writing

LOOPBACK = "127.0.0.1"
SERVER = "server"


@dataclass(frozen=True)
class LocalSite:
    """One process of a local federation and its folder, which holds `site.toml`, keys, data, state and `node.log`."""

    name: str
    folder: Path
    role: str = "site"

    @property
    def settings(self) -> Path:
        """Its `site.toml`."""
        return self.folder / "site.toml"

    @property
    def state(self) -> Path:
        """Its state directory."""
        return self.folder / "state"

    @property
    def log(self) -> Path:
        """What its process printed."""
        return self.folder / "node.log"


def local_sites(settings: ExperimentSettings, data: FederatedData, directory: Path) -> list[LocalSite]:
    """The processes of a local federation; the server of centralized FLOP comes last.

    Raises:
        ConfigError: a hospital has the name of the server.
    """
    names = [site.name for site in data.sites]
    sites = [
        LocalSite(name, directory / "sites" / folder) for name, folder in zip(names, file_names(names), strict=True)
    ]
    if settings.method == "flop":
        if SERVER in names:
            raise ConfigError(f"a hospital is named {SERVER!r}, which is the name of the server of method flop")
        sites.append(LocalSite(SERVER, directory / SERVER, "server"))
    return sites


def prepare(
    settings: ExperimentSettings, data: FederatedData, sites: list[LocalSite], directory: Path
) -> FederationSettings:
    """Write all files of a local federation and return what its sites share.

    Raises:
        ConfigError, FederationError, TopologyError: the settings make no federation.
        RunError: a file cannot be written.
    """
    own = {site.name: site for site in data.sites}
    ports = iter(free_ports(2 * len(sites)))
    members = []
    for site in sites:
        with writing(site.folder):
            site.folder.mkdir(parents=True)
        public = generate(site.folder / "keys", site.name)
        if site.role == "site":
            export_site(data, own[site.name], site.folder / "data.safetensors")
        members.append(
            Member(
                name=site.name,
                role="server" if site.role == "server" else "site",
                control=f"tcp://{LOOPBACK}:{next(ports)}",
                bulk=f"tcp://{LOOPBACK}:{next(ports)}" if settings.gossip.bulk == "sealed" else None,
                curve_key=public.curve_key,
                signing_key=public.signing_key,
                samples=len(own[site.name].train) if site.role == "site" else None,
            )
        )
    federation = _federation(settings, data, members)
    check_federation(federation)
    _write(directory / "federation.toml", federation.model_dump(mode="json", exclude_none=True))
    for site, member in zip(sites, members, strict=True):
        _write(site.settings, _site_settings(settings, site, member))
    return federation


def _federation(settings: ExperimentSettings, data: FederatedData, members: list[Member]) -> FederationSettings:
    topology, graph = inline_topology(settings.topology)
    return FederationSettings(
        name=f"local-{settings.method}",
        method=settings.method,
        seed=settings.seed,
        samples=SampleSettings(
            task=data.dataset.task,
            class_names=data.dataset.class_names,
            shape=tuple(data.dataset.inputs.shape[1:]),
            mean=tuple(data.mean.tolist()),
            std=tuple(data.std.tolist()),
        ),
        model=settings.model.model_copy(
            update={"weights": settings.model.weights.absolute() if settings.model.weights else None}
        ),
        topology=topology,
        graph=graph,
        training=settings.training,
        gossip=settings.gossip,
        members=tuple(members),
    )


def _site_settings(settings: ExperimentSettings, site: LocalSite, member: Member) -> dict[str, Any]:
    values = SiteSettings(
        name=site.name,
        federation=Path("../../federation.toml" if site.role == "site" else "../federation.toml"),
        listen=member.control,
        bulk_listen=member.bulk,
        device=settings.device,
        threads=settings.threads,
        evaluate_every=settings.evaluate_every,
        data=SiteDataSettings(source="safetensors", path=Path("data.safetensors")) if site.role == "site" else None,
        metrics=MetricsSettings(),
    )
    return values.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def _write(path: Path, values: dict[str, Any]) -> None:
    write_text(path, tomli_w.dumps(values))


def free_ports(count: int) -> list[int]:
    """Ports on loopback that nothing listens on at this moment."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind((LOOPBACK, 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()
