"""Settings of what neighbours and releases may reveal."""

from typing import Literal

from pydantic import Field, model_validator

from flop_p2p.config.base import Settings
from flop_p2p.config.gossip import GossipSettings

Masking = Literal["none", "pairwise"]


def check_masked_numbers(privacy: "PrivacySettings", gossip: GossipSettings) -> None:
    """Refuse to compress what is masked.

    Raises:
        ValueError: both are asked for.
    """
    if privacy.masking == "pairwise" and gossip.compression != "none":
        raise ValueError(
            f"privacy.masking = 'pairwise' sends integers that look random, which gossip.compression = "
            f"{gossip.compression!r} cannot make smaller; choose one of the two"
        )


class PrivacySettings(Settings):
    """What protects patients beyond keeping the head at home."""

    masking: Masking = Field(
        "none",
        description="pairwise: a neighbour learns the weighted sum of the bodies that it receives, and no single one",
    )
    masking_range: float = Field(
        64.0,
        gt=0,
        le=2**20,
        description="with masking all numbers of a body lie within plus and minus this; precise to it over 2^31",
    )

    def unmasked(self) -> "PrivacySettings":
        """The same for a method that does not gossip."""
        fields = type(self).model_fields
        return self.model_copy(update={key: fields[key].default for key in ("masking", "masking_range")})

    @model_validator(mode="after")
    def _settings_of_masking(self) -> "PrivacySettings":
        if self.masking == "none" and self.masking_range != type(self).model_fields["masking_range"].default:
            raise ValueError("masking_range needs masking = 'pairwise', and masking is 'none'")
        return self
