"""Settings of who exchanges with whom, and with which weights; and the content of a topology file."""

from typing import Any, Literal, NamedTuple

from pydantic import Field, field_serializer

from flop_p2p.config.base import Settings

MixingWeights = Literal["metropolis-hastings", "uniform", "maximum-degree", "given"]
Weighting = Literal["uniform", "samples"]

TOPOLOGY_FILE_SUFFIX = ".toml"  # of a topology's name that is a file


class TopologySettings(Settings):
    """The graph or schedule over the sites and its mixing weights."""

    name: str = Field(
        "ring",
        description="a family such as ring, full, torus, base:1, epidemic:2, or a topology file ending in .toml",
    )
    weights: MixingWeights | None = Field(
        None,
        description="mixing weights of a static graph: metropolis-hastings, uniform, maximum-degree or given; default "
        "those given in a topology file, else metropolis-hastings (uniform for directed graphs)",
    )
    weighting: Weighting = Field(
        "uniform", description="whether all sites count the same or by their number of training samples"
    )


class Edge(NamedTuple):
    """A link between two sites, or from the first to the second if the file is directed."""

    first: str
    second: str
    weight: float | None = None


class TopologyFile(Settings):
    """The content of a topology file."""

    sites: tuple[str, ...] = Field((), description="names of the sites; a family without them fits any sites")
    family: str | None = Field(None, description="a family such as ring or base:1, over the sites in their order")
    edges: tuple[Edge, ...] = Field((), description="pairs of sites, each with a weight or none with one")
    directed: bool = Field(False, description="edges lead from the first site to the second only")
    own_weights: dict[str, float] = Field(
        {}, description="weights that sites give to their own bodies; default the rest"
    )

    @property
    def weighted(self) -> bool:
        """Whether the file gives mixing weights."""
        return any(edge.weight is not None for edge in self.edges)

    @field_serializer("edges")
    def _as_in_a_file(self, edges: tuple[Edge, ...]) -> list[list[Any]]:
        """Edges as they are written: TOML knows no None in place of a weight."""
        return [[part for part in edge if part is not None] for edge in edges]
