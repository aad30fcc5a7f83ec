"""Settings of the network and of its split into body and head."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from flop_p2p.config.base import Settings


class ModelSettings(Settings):
    """The network and its split into a shared body and a private head."""

    name: str | None = Field(
        None,
        description="mlp, small-cnn, a torchvision backbone such as resnet18, or your own package.module:callable; "
        "default mlp for tables and small-cnn for images",
    )
    private: tuple[str, ...] = Field(
        (),
        description="globs over parameter and buffer names that stay at the site; default the last linear layer",
    )
    batch_norm: Literal["shared", "private"] = Field(
        "shared", description="share BatchNorm layers with the body, or keep them at the site (FedBN)"
    )
    weights: Path | None = Field(None, description="safetensors file with pretrained weights")
