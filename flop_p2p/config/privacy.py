"""Settings of what neighbours and releases may reveal."""

from typing import Literal

from pydantic import Field, model_validator

from flop_p2p.config.base import Settings
from flop_p2p.config.gossip import GossipSettings
from flop_p2p.config.model import ModelSettings
from flop_p2p.config.training import TrainingSettings

Masking = Literal["none", "pairwise"]
Accountant = Literal["rdp", "prv"]
Unit = Literal["record", "patient"]


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
    noise_multiplier: float = Field(
        0.0,
        ge=0,
        description="differential privacy (DP-SGD): standard deviation of the noise in a gradient, in clipping norms; "
        "0 is none",
    )
    clipping_norm: float = Field(
        1.0, gt=0, description="largest norm of the gradient of one sample, over body and head together"
    )
    epsilon: float | None = Field(
        None, gt=0, description="privacy budget of every site: before it would be exceeded, the site stops sending"
    )
    delta: float = Field(1e-5, gt=0, lt=1, description="delta at which epsilon is accounted; well below 1 in records")
    accountant: Accountant = Field(
        "rdp", description="how epsilon is accounted: by Renyi divergences, or the tighter privacy random variable"
    )
    unit: Unit = Field(
        "record", description="whose presence is hidden: one sample's, or one patient's with all samples"
    )

    @property
    def differential(self) -> bool:
        """Whether training is differentially private."""
        return self.noise_multiplier > 0

    def unmasked(self) -> "PrivacySettings":
        """The same for a method that does not gossip."""
        fields = type(self).model_fields
        return self.model_copy(update={key: fields[key].default for key in ("masking", "masking_range")})

    @model_validator(mode="after")
    def _settings_of_masking(self) -> "PrivacySettings":
        if self.masking == "none" and self.masking_range != type(self).model_fields["masking_range"].default:
            raise ValueError("masking_range needs masking = 'pairwise', and masking is 'none'")
        return self

    @model_validator(mode="after")
    def _settings_of_noise(self) -> "PrivacySettings":
        for key in ("clipping_norm", "epsilon", "delta", "accountant", "unit"):
            if not self.differential and getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{key} needs a noise_multiplier above 0, for nothing is private without noise")
        return self


def check_differential(privacy: PrivacySettings, model: ModelSettings, training: TrainingSettings) -> None:
    """Refuse training in which every gradient depends on all labels of a site: clipping one sample's bounds nothing.

    Raises:
        ValueError: differential privacy together with class weights, balanced sampling or logit adjustment; or with
            private BatchNorm layers, whose place GroupNorm takes.
    """
    if not privacy.differential:
        return
    if model.batch_norm == "private":
        raise ValueError(
            "model.batch_norm = 'private': with privacy.noise_multiplier GroupNorm takes the place of BatchNorm, and "
            "nothing is left to keep; leave it at 'shared', or name layers in model.private"
        )
    for key, plain in (("head_loss", "cross-entropy"), ("class_weights", "none"), ("sampling", "shuffle")):
        if (value := getattr(training, key)) != plain:
            raise ValueError(
                f"training.{key} = {value!r} goes by the counts of a site's labels, which the noise of "
                f"privacy.noise_multiplier does not hide; leave it at {plain!r}"
            )
