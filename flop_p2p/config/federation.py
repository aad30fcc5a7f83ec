"""Settings of a federation: `federation.toml`, the file that all its sites hold in common. No secrets in it.

What is wrong with one member or with several together (keys, addresses, roles, the topology over them) is found by
`flop_p2p.identity.members.check_federation`; here only what makes a file unreadable as a federation.
"""

import hashlib
import json
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, field_validator, model_validator

from flop_p2p.config.base import Settings, read_toml, validate
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.config.model import ModelSettings
from flop_p2p.config.privacy import PrivacySettings, check_differential, check_masked_numbers
from flop_p2p.config.topology import TOPOLOGY_FILE_SUFFIX, TopologyFile, TopologySettings
from flop_p2p.config.training import TrainingSettings, check_one_correction

PROTOCOL_VERSION = 1
MAX_CANONICAL = 1 << 19  # characters of `FederationSettings.canonical`: two nodes that meet send it to each other


def _printable(name: str) -> str:
    if not name.isprintable() or name != name.strip():
        raise ValueError("a name has printable characters only, no line breaks, and no space at its ends")
    return name


def _with_host(address: str) -> str:
    host = address.removeprefix("tcp://").rpartition(":")[0]
    try:
        host.encode("idna")  # as Python does before it asks for the host's address
    except UnicodeError as error:
        raise ValueError("a host name is parts of 1 to 63 characters with single dots between them") from error
    if not host.isprintable():
        raise ValueError("a host name has printable characters only")
    return address


def _with_port(endpoint: str) -> str:
    if not 1 <= int(endpoint.rpartition(":")[2]) <= 65535:
        raise ValueError("a port is a number from 1 to 65535")
    return endpoint


SiteName = Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
Endpoint = Annotated[
    str,
    Field(max_length=255, pattern=r"^tcp://[^\s/]+:[0-9]{1,5}$"),
    AfterValidator(_with_port),
    AfterValidator(_with_host),
]  # tcp://host:port
HostPort = Annotated[
    str,
    Field(max_length=255, pattern=r"^[^\s/]+:[0-9]{1,5}$"),
    AfterValidator(_with_port),
    AfterValidator(_with_host),
]  # host:port
Fingerprint = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256, or an Ed25519 public key, in hexadecimal
CurveKey = Annotated[str, Field(pattern=r"^[0-9a-zA-Z.:+=^!/*?&<>()\[\]{}@%$#-]{40}$")]  # a CURVE public key in Z85


class SampleSettings(Settings):
    """What all sites agree their samples are."""

    task: Literal["multiclass", "binary", "multilabel"] = Field(description="kind of labels")
    class_names: tuple[str, ...] = Field(min_length=1, description="classes in the order of the model's outputs")
    shape: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        description="[channels, height, width] of an image, or [features] of a table"
    )
    mean: tuple[float, ...] | None = Field(
        None,
        description="mean of each channel (units of 0 to 1) or feature; default that of the site's own training data",
    )
    std: tuple[Annotated[float, Field(gt=0)], ...] | None = Field(None, description="standard deviation, likewise")

    @field_validator("class_names", "shape", "mean", "std", mode="before")
    @classmethod
    def _from_text(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _fits_together(self) -> "SampleSettings":
        if len(self.shape) not in (1, 3):
            raise ValueError("shape has three numbers (channels, height, width) or one (features)")
        if repeated := _repeated(self.class_names):
            raise ValueError(f"class {repeated!r} is named twice in class_names")
        if self.task != "multilabel" and len(self.class_names) < 2:
            raise ValueError("class_names needs two classes or more, except for task 'multilabel'")
        if self.task == "binary" and len(self.class_names) != 2:
            raise ValueError(f"task 'binary' has two classes, class_names has {len(self.class_names)}")
        if (self.mean is None) != (self.std is None):
            raise ValueError("give both mean and std, or neither")
        for key, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.shape[0]:
                raise ValueError(f"{key} has {len(values)} numbers, and the shape {self.shape[0]} channels or features")
        return self


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
    signature: str = Field(
        pattern=r"^[0-9a-f]{128}$", description="Ed25519 over the id of the revision, in hexadecimal"
    )


class FederationSettings(Settings):
    """`federation.toml`: what the sites agreed on. Everything but addresses and signatures decides its id."""

    name: SiteName = Field(description="name of the federation")
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
    graph: TopologyFile | None = Field(None, description="content of the topology file that topology.name names")
    training: TrainingSettings = TrainingSettings()
    gossip: GossipSettings = GossipSettings()
    privacy: PrivacySettings = PrivacySettings()
    members: tuple[Member, ...] = Field(min_length=2, description="the sites")
    signatures: tuple[Signature, ...] = Field((), description="consent of the members, needed from revision 2 on")

    @model_validator(mode="after")
    def _is_one_federation(self) -> "FederationSettings":
        check_one_correction(self.training)
        check_differential(self.privacy, self.model, self.training)
        check_masked_numbers(self.privacy, self.gossip)
        if repeated := _repeated([_folded(member.name) for member in self.members]):
            alike = [repr(member.name) for member in self.members if _folded(member.name) == repeated]
            raise ValueError(f"members need names that people can tell apart: {' and '.join(alike)}")
        is_file = self.topology.name.endswith(TOPOLOGY_FILE_SUFFIX)
        if is_file != (self.graph is not None):
            raise ValueError(
                "topology.name is a file and its content is not in graph; `flop-p2p federation init` puts it there"
                if is_file
                else "graph is the content of a topology file, and topology.name names none"
            )
        return self

    # Plain properties: a cached one would survive `model_copy` and tell of the settings before the change.

    @property
    def canonical(self) -> str:
        """JSON of everything but addresses and signatures, keys and members sorted: equal where sites agree."""
        values = self.model_dump(mode="json", exclude={"signatures": True, "members": {"__all__": {"control", "bulk"}}})
        values["members"].sort(key=lambda member: member["name"])
        return json.dumps(values, sort_keys=True, separators=(",", ":"))

    @property
    def id(self) -> str:
        """SHA-256 of `canonical`, in hexadecimal."""
        return hashlib.sha256(self.canonical.encode()).hexdigest()

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all members, ascending: the order of rows of the mixing matrix and of mixing."""
        return tuple(sorted(member.name for member in self.members))

    @property
    def sites(self) -> tuple[str, ...]:
        """Names of the members that train, ascending."""
        return tuple(sorted(member.name for member in self.members if member.role == "site"))

    def member(self, name: str) -> Member:
        """The member of this name.

        Raises:
            KeyError: there is none.
        """
        return {member.name: member for member in self.members}[name]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _repeated(names: Sequence[str]) -> str | None:
    return next((name for index, name in enumerate(names) if name in names[:index]), None)


def load_federation(path: Path) -> FederationSettings:
    """Read `federation.toml`.

    Raises:
        ConfigError: it cannot be read, or a key or value is wrong; one line that names it.
    """
    return validate(FederationSettings, read_toml(path), str(path))
