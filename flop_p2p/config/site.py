"""Settings of one site's node: `site.toml`. It never leaves the site."""

from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from flop_p2p.config.base import Settings, read_toml, validate
from flop_p2p.config.federation import Endpoint, HostPort, SiteName

SiteSource = Literal["safetensors", "medmnist", "idx", "folder", "image-csv", "csv", "digits", "breast-cancer"]


class SiteDataSettings(Settings):
    """Where the site's own data is."""

    source: SiteSource = Field(description="kind of data; safetensors is what `flop-p2p data export` writes")
    path: Path | None = Field(None, description="file or folder of the data")
    split: tuple[float, float, float] = Field(
        (0.7, 0.1, 0.2), description="fractions for training, validation and test; safetensors files bring their split"
    )
    limit_images: int | None = Field(None, ge=1, description="use only so many samples, drawn by the seed")
    path_column: str = Field("path", description="image-csv: column with the image file")
    label_column: str = Field("label", description="csv and image-csv: column with the label")
    patient_column: str | None = Field(None, description="csv and image-csv: column with the patient")


class MetricsSettings(Settings):
    """Figures for Prometheus."""

    listen: HostPort | None = Field(None, description="host:port for Prometheus; none by default")


class SitePrivacySettings(Settings):
    """What the site itself grants."""

    epsilon: float | None = Field(
        None, gt=0, description="privacy budget of this site alone; the smaller of it and the federation's counts"
    )


class Address(Settings):
    """Where a neighbour is reached from here, instead of what the federation says."""

    control: Endpoint | None = None
    bulk: Endpoint | None = None


class SiteSettings(Settings):
    """`site.toml`: which member this is, and its own files, addresses and device."""

    name: SiteName = Field(description="which member of the federation this site is")
    federation: Path = Field(Path("federation.toml"), description="the common file of the federation")
    keys: Path = Field(Path("keys"), description="folder that `flop-p2p keygen` made")
    state: Path = Field(Path("state"), description="folder for checkpoints, logs and metrics")
    listen: Endpoint | None = Field(
        None, description="address to bind for messages; default every interface at the member's port"
    )
    bulk_listen: Endpoint | None = Field(None, description="address to bind for bodies, likewise")
    proxy: HostPort | None = Field(None, description="SOCKS5 proxy host:port for outgoing connections")
    addresses: dict[str, Address] = Field({}, description="addresses of neighbours as seen from here, by name")
    device: str = Field("cpu", description="cpu or cuda")
    threads: int = Field(1, ge=1, description="torch threads")
    evaluate_every: int = Field(1, ge=0, description="rounds between evaluations; 0 evaluates after the last only")
    checkpoint_seconds: float = Field(30.0, gt=0, description="seconds between checkpoints inside a long round")
    data: SiteDataSettings | None = Field(None, description="the own data; a server has none")
    privacy: SitePrivacySettings = SitePrivacySettings()
    metrics: MetricsSettings = MetricsSettings()


def load_site(path: Path) -> SiteSettings:
    """Read `site.toml`; relative paths in it are relative to its folder.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong; one line that names it.
    """
    site = validate(SiteSettings, read_toml(path), str(path))
    folder = path.parent
    paths: dict[str, Any] = {key: folder / getattr(site, key) for key in ("federation", "keys", "state")}
    if site.data is not None and site.data.path is not None:
        paths["data"] = site.data.model_copy(update={"path": folder / site.data.path})
    return site.model_copy(update=paths)
