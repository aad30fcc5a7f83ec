"""Settings of the leakage audit: which attacks run, on what, and for how long."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from flop_p2p.config.base import Settings

AttackKind = Literal["inversion", "labels", "membership"]
TopologyName = Annotated[str, Field(min_length=1)]  # no file name, so that a flag splits it at commas
MembershipMethod = Literal["local", "fedavg", "fedavg-ft", "flop", "dfedavg", "p2p-flop", "p2p-flop-alt"]


class AuditSettings(Settings):
    """What `flop-p2p audit leakage` runs. More images and iterations give firmer figures and take longer."""

    attacks: tuple[AttackKind, ...] = Field(
        ("inversion", "labels", "membership"),
        min_length=1,
        description="attacks to run: inversion of gradients, recovery of labels, inference of membership",
    )
    moments: tuple[Annotated[int, Field(ge=0)], ...] = Field(
        (), description="rounds, counted from 0, whose bodies are attacked; empty: the first and the last"
    )
    inversion_images: int = Field(8, ge=2, description="patient images that every inversion is tried on")
    inversion_batches: tuple[Annotated[int, Field(ge=1)], ...] = Field(
        (1, 4), min_length=1, description="sizes of the batches behind the gradients that are inverted"
    )
    inversion_iterations: int = Field(300, ge=1, description="steps of the optimizer of an inversion")
    inversion_restarts: int = Field(1, ge=1, description="inversions from different noise; the best match is kept")
    inversion_total_variation: float = Field(
        1e-2, ge=0, description="weight of total variation: larger gives smoother reconstructions"
    )
    inversion_noise_multiplier: float = Field(
        1.0, gt=0, description="noise of the gradients that are inverted under noise, where [privacy] sets none"
    )
    label_images: int = Field(64, ge=2, description="patient images whose labels are recovered")
    label_others: int = Field(
        16, ge=1, description="images of the attacker's own that are tried under every label, beside a stand-in head"
    )
    label_iterations: int = Field(100, ge=1, description="steps of the optimizer that guesses head, image and label")

    membership_shadows: int = Field(
        16, ge=16, multiple_of=2, description="shadow federations behind each guess; two more are trained in all"
    )
    membership_methods: tuple[MembershipMethod, ...] = Field(
        ("local", "fedavg", "flop", "dfedavg", "p2p-flop"),
        min_length=1,
        description="methods whose members are guessed; of local the whole model, as if it were given away",
    )
    membership_topologies: tuple[TopologyName, ...] = Field(
        (), description="topologies of the gossip methods; empty: the one of the experiment, ring and full"
    )

    @field_validator(
        "attacks", "moments", "inversion_batches", "membership_methods", "membership_topologies", mode="before"
    )
    @classmethod
    def _from_text(cls, value: object) -> object:
        return tuple(part.strip() for part in value.split(",")) if isinstance(value, str) else value

    @field_validator("attacks", "moments", "inversion_batches", "membership_methods", "membership_topologies")
    @classmethod
    def _named_once(cls, value: tuple[object, ...]) -> tuple[object, ...]:
        if len(set(value)) < len(value):
            raise ValueError("the same one is given twice")
        return value
