"""Settings of the exchange of bodies: what is sent of one, and what a node does about late and lost neighbours."""

from typing import Literal

from pydantic import Field, model_validator

from flop_p2p.config.base import Settings

Compression = Literal["none", "bfloat16", "int8", "top-k"]


class GossipSettings(Settings):
    """How a round treats neighbours that are late, absent or gone. Times are in seconds."""

    deadline: float = Field(
        60.0, gt=0, description="seconds, from the end of its own training, that a site waits for its neighbours"
    )
    staleness: int = Field(1, ge=0, description="rounds that a body may be late and still be used")
    start_timeout: float = Field(60.0, gt=0, description="seconds to wait for all neighbours before the first round")
    min_neighbours: int = Field(1, ge=0, description="neighbours that suffice to start once start_timeout has passed")
    isolated: Literal["train", "wait"] = Field(
        "train",
        description="what a site does while no neighbour can be reached: train on alone, or wait for one, even if all "
        "finished and left while it was down",
    )
    bulk: Literal["sealed", "curve"] = Field(
        "sealed", description="bodies on a channel of their own, sealed with AES-256-GCM, or inside CURVE on one port"
    )
    renew_keys_every: int = Field(100, ge=1, description="rounds after which two neighbours agree on fresh keys")
    compression: Compression = Field(
        "none",
        description="what is sent of a body: all of it, each number rounded to bfloat16 or to int8, or the largest "
        "changes only (CHOCO-SGD)",
    )
    top_k: float = Field(0.01, gt=0, le=0.5, description="part of the numbers that top-k sends in a round")
    consensus_step: float = Field(
        0.1, gt=0, le=1, description="how far top-k moves towards the neighbours in a round; too far and it diverges"
    )
    heartbeat: float = Field(2.0, gt=0, description="seconds between signs of life")
    lost_after: float = Field(8.0, gt=0, description="seconds without one after which a neighbour counts as lost")

    @model_validator(mode="after")
    def _several_heartbeats(self) -> "GossipSettings":
        if self.lost_after < 2 * self.heartbeat:
            raise ValueError("lost_after must be at least twice heartbeat, or a neighbour is lost by one late packet")
        return self

    @model_validator(mode="after")
    def _settings_of_top_k(self) -> "GossipSettings":
        for key in ("top_k", "consensus_step"):
            if self.compression != "top-k" and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} needs compression = 'top-k', and compression is {self.compression!r}")
        return self
