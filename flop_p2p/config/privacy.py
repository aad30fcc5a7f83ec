"""Settings of what neighbours and releases may reveal."""

from typing import Literal

from pydantic import Field

from flop_p2p.config.base import Settings

Masking = Literal["none", "pairwise"]


class PrivacySettings(Settings):
    """What protects patients beyond keeping the head at home."""

    masking: Masking = Field(
        "none",
        description="pairwise: a neighbour learns the weighted sum of the bodies that it receives, and no single one",
    )
