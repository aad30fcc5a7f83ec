"""The files of a local federation: keys, data, `site.toml` of each hospital, and the `federation.toml` they share."""

import secrets
import shutil
import socket
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import tomli_w
import zmq

from flop_p2p.config import ExperimentSettings, FederationSettings, Member, SiteSettings, validate
from flop_p2p.config.site import SiteDataSettings
from flop_p2p.data import FederatedData
from flop_p2p.data.site import export_site, sample_settings
from flop_p2p.errors import ConfigError
from flop_p2p.identity.files import write_federation
from flop_p2p.identity.keys import PublicKeys, generate
from flop_p2p.identity.members import check_federation
from flop_p2p.simulation.run_directory import file_names
from flop_p2p.topology.files import inline_topology
from flop_p2p.writing import write_text, writing

LOOPBACK = "127.0.0.1"
SERVER = "server"
FEDERATION = "federation.toml"
STAGING = ".preparing"


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
        ConfigError: there is one hospital only, or one has the name of the server.
    """
    names = [site.name for site in data.sites]
    if len(names) < 2:
        raise ConfigError(f"a federation has two hospitals or more, and here is {names[0]!r} alone; take --sites 2")
    sites = [
        LocalSite(name, directory / "sites" / folder) for name, folder in zip(names, file_names(names), strict=True)
    ]
    if settings.method == "flop":
        if SERVER in names:
            raise ConfigError(f"a hospital is named {SERVER!r}, which is the name of the server of method flop")
        sites.append(LocalSite(SERVER, directory / SERVER, "server"))
    return sites


def check_settings(settings: ExperimentSettings, data: FederatedData, sites: Sequence[LocalSite]) -> None:
    """Refuse settings that make no federation, before anything is written: with keys that nobody will use.

    Raises:
        ConfigError, FederationError, TopologyError: they make none.
    """
    keys = [
        {"name": site.name, "curve_key": zmq.curve_keypair()[0].decode(), "signing_key": secrets.token_hex(32)}
        for site in sites
    ]
    publics = [validate(PublicKeys, values, "the name of a hospital") for values in keys]
    _federation(settings, data, sites, publics, range(1, 2 * len(sites) + 1))


def prepare(
    settings: ExperimentSettings, data: FederatedData, sites: Sequence[LocalSite], directory: Path
) -> FederationSettings:
    """Write all files of a local federation and return what its sites share.

    They are made in a folder of their own and moved to their places, `federation.toml` last: while that is missing,
    no daemon has seen any of them, and they can be made anew.

    Raises:
        ConfigError, FederationError, TopologyError: the settings make no federation.
        RunError: a file cannot be written.
    """
    staging = directory / STAGING
    with writing(staging):
        if staging.exists():
            for left in (directory / "sites", directory / SERVER, staging):
                shutil.rmtree(left, ignore_errors=left != staging)
        staging.mkdir(parents=True)
    staged = [replace(site, folder=staging / site.folder.relative_to(directory)) for site in sites]
    federation = _write_all(settings, data, staged, staging)
    with writing(directory):
        for path in sorted(staging.iterdir(), key=lambda path: path.name == FEDERATION):
            path.rename(directory / path.name)
        staging.rmdir()
    return federation


def _write_all(
    settings: ExperimentSettings, data: FederatedData, sites: Sequence[LocalSite], directory: Path
) -> FederationSettings:
    own = {site.name: site for site in data.sites}
    publics = []
    for site in sites:
        with writing(site.folder):
            site.folder.mkdir(parents=True)
        publics.append(generate(site.folder / "keys", site.name))
        if site.role == "site":
            export_site(data, own[site.name], site.folder / "data.safetensors")
    federation = _federation(settings, data, sites, publics, free_ports(2 * len(sites)))
    write_federation(directory / FEDERATION, federation)
    for site in sites:
        write_toml(site.settings, _site_settings(settings, site, federation.member(site.name)))
    return federation


def _federation(
    settings: ExperimentSettings,
    data: FederatedData,
    sites: Sequence[LocalSite],
    publics: Sequence[PublicKeys],
    ports: Sequence[int],
) -> FederationSettings:
    """A federation of these sites, checked."""
    own = {site.name: site for site in data.sites}
    members = [
        Member(
            name=site.name,
            role="server" if site.role == "server" else "site",
            control=f"tcp://{LOOPBACK}:{control}",
            bulk=f"tcp://{LOOPBACK}:{bulk}" if settings.gossip.bulk == "sealed" else None,
            curve_key=public.curve_key,
            signing_key=public.signing_key,
            samples=len(own[site.name].train) if site.role == "site" else None,
        )
        for site, public, control, bulk in zip(sites, publics, ports[::2], ports[1::2], strict=True)
    ]
    topology, graph = inline_topology(settings.topology)
    values = {
        "name": f"local-{settings.method}",
        "method": settings.method,
        "seed": settings.seed,
        "samples": sample_settings(data),
        "model": settings.model.model_copy(
            update={"weights": settings.model.weights.absolute() if settings.model.weights else None}
        ),
        "topology": topology,
        "graph": graph,
        "training": settings.training,
        "gossip": settings.gossip,
        "privacy": settings.privacy,
        "members": tuple(members),
    }
    federation = validate(FederationSettings, values, "the federation")
    check_federation(federation)
    return federation


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
    )
    return values.model_dump(mode="json", exclude_none=True, exclude_defaults=True)


def write_toml(path: Path, values: dict[str, Any]) -> None:
    """Replace a file by one with these values.

    Raises:
        RunError: it cannot be written.
    """
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
