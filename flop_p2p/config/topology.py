"""Settings of who exchanges with whom, and with which weights."""

from typing import Literal

from pydantic import Field

from flop_p2p.config.base import Settings

MixingWeights = Literal["metropolis-hastings", "uniform", "maximum-degree", "given"]
Weighting = Literal["uniform", "samples"]


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
