"""Settings of a federation: `federation.toml`, the file that all its sites hold in common. No secrets in it."""

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from flop_p2p.config.base import Settings, read_toml, validate
from flop_p2p.config.model import ModelSettings
from flop_p2p.config.topology import TopologySettings
from flop_p2p.config.training import TrainingSettings

PROTOCOL_VERSION = 1

# What a site may be called: printable, no line breaks, no leading or trailing space.
SiteName = Annotated[
    str, Field(min_length=1, max_length=64, pattern=r"^[^\s\x00-\x1f\x7f]([^\x00-\x1f\x7f]*[^\s\x00-\x1f\x7f])?$")
]
Endpoint = Annotated[str, Field(max_length=255, pattern=r"^tcp://.+:\d+$")]
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256, or an Ed25519 public key, in hexadecimal
CurveKey = Annotated[str, Field(min_length=40, max_length=40)]  # a CURVE public key in Z85


class GossipSettings(Settings):
    """How a round treats neighbours that are late, absent or gone. Times are in seconds."""

    deadline: float = Field(
        60.0, gt=0, description="seconds, from the end of its own training, that a site waits for its neighbours"
    )
    staleness: int = Field(1, ge=0, description="rounds that a body may be late and still be used")
    start_timeout: float = Field(60.0, gt=0, description="seconds to wait for all neighbours before the first round")
    min_neighbours: int = Field(1, ge=0, description="neighbours that suffice to start once start_timeout has passed")
    isolated: Literal["train", "wait"] = Field(
        "train", description="what a site does while no neighbour can be reached: train on alone, or wait for one"
    )
    bulk: Literal["sealed", "curve"] = Field(
        "sealed", description="bodies on a channel of their own, sealed with AES-256-GCM, or inside CURVE on one port"
    )
    renew_keys_every: int = Field(100, ge=1, description="rounds after which two neighbours agree on fresh keys")
    heartbeat: float = Field(2.0, gt=0, description="seconds between signs of life")
    lost_after: float = Field(8.0, gt=0, description="seconds without one after which a neighbour counts as lost")

    @model_validator(mode="after")
    def _several_heartbeats(self) -> "GossipSettings":
        if self.lost_after < 2 * self.heartbeat:
            raise ValueError("lost_after must be at least twice heartbeat, or a neighbour is lost by one late packet")
        return self


class SampleSettings(Settings):
    """What all sites agree their samples are."""

    task: Literal["multiclass", "binary", "multilabel"] = Field(description="kind of labels")
    class_names: tuple[str, ...] = Field(min_length=1, description="classes in the order of the model's outputs")
    shape: tuple[int, ...] = Field(description="[channels, height, width] of an image, or [features] of a table")
    mean: tuple[float, ...] | None = Field(
        None,
        description="mean of each channel (units of 0 to 1) or feature; default that of the site's own training data",
    )
    std: tuple[float, ...] | None = Field(None, description="standard deviation, likewise")


class Member(Settings):
    """One site of the federation, with its public keys."""

    name: SiteName
    role: Literal["site", "server"] = Field(
        "site", description="server: averages and trains nothing (centralized FLOP)"
    )
    control: Endpoint | None = Field(None, description="address for messages; none if the site only dials out")
    bulk: Endpoint | None = Field(None, description="address for sealed bodies; none with gossip.bulk = 'curve'")
    curve_key: CurveKey = Field(description="public key for the encrypted control channel")
    signing_key: Fingerprint = Field(description="Ed25519 public key that signs revisions of the federation")
    samples: int | None = Field(None, ge=1, description="training samples; needed with weighting by samples")


class Signature(Settings):
    """A member's consent to a revision."""

    member: SiteName
    signature: str = Field(pattern=r"^[0-9a-f]{128}$", description="Ed25519 over the federation id")


class FederationSettings(Settings):
    """`federation.toml`: what the sites agreed on. Everything but addresses and signatures decides its id."""

    name: str = Field(min_length=1, max_length=64, description="name of the federation")
    protocol: int = Field(PROTOCOL_VERSION, description="version of the messages between sites")
    revision: int = Field(1, ge=1, description="counts up with every change of members")
    from_round: int = Field(0, ge=0, description="first round (counted from 0) in which this revision holds")
    previous: Fingerprint | None = Field(None, description="id of the revision before")
    method: Literal["p2p-flop", "p2p-flop-alt", "flop"] = Field(
        "p2p-flop", description="gossip of the body, the same with head and body trained in turn, or a server"
    )
    seed: int = Field(0, ge=0, description="decides initial weights, the order of samples, and drawn topologies")
    samples: SampleSettings
    model: ModelSettings = ModelSettings()
    topology: TopologySettings = TopologySettings()
    training: TrainingSettings = TrainingSettings()
    gossip: GossipSettings = GossipSettings()
    members: tuple[Member, ...] = Field(min_length=2, description="the sites")
    signatures: tuple[Signature, ...] = Field((), description="consent of the members, needed from revision 2 on")

    @cached_property
    def canonical(self) -> str:
        """JSON of everything but addresses and signatures, keys and members sorted: equal where sites agree."""
        values = self.model_dump(mode="json", exclude={"signatures": True, "members": {"__all__": {"control", "bulk"}}})
        values["members"].sort(key=lambda member: member["name"])
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @cached_property
    def id(self) -> str:
        """SHA-256 of `canonical`, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Names of all members, ascending: the order of rows of the mixing matrix and of mixing."""
        return tuple(sorted(member.name for member in self.members))

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """Names of the members that train, ascending."""
        return tuple(sorted(member.name for member in self.members if member.role == "site"))

    def member(self, name: str) -> Member:
        """The member of this name; a KeyError where there is none."""
        return next((member for member in self.members if member.name == name), None) or _no_member(name)


def _no_member(name: str) -> Member:
    raise KeyError(name)


def load_federation(path: Path) -> FederationSettings:
    """Read `federation.toml`.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong; one line that names it.
    """
    return validate(FederationSettings, read_toml(path), str(path))
