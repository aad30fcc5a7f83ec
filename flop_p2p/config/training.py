"""Settings of local training."""

import math
from typing import Literal

from pydantic import Field, field_validator

from flop_p2p.config.base import Settings


class TrainingSettings(Settings):
    """Rounds, local training and its optimizer."""

    rounds: int = Field(20, ge=1, description="rounds of local training, exchange and mixing")
    local_epochs: int = Field(1, ge=1, description="passes over a site's training data in a round")
    local_steps: int | None = Field(None, ge=1, description="gradient steps in a round, instead of epochs")
    batch_size: int = Field(32, ge=1, description="samples in a gradient step")
    optimizer: Literal["sgd", "adam", "adamw"] = Field("sgd", description="the optimizer of a site")
    lr: float = Field(0.01, gt=0, description="learning rate")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of sgd")
    weight_decay: float = Field(0.0, ge=0, description="weight decay")
    schedule: str = Field("constant", description="learning rate over rounds: constant, cosine, or step:EVERY:FACTOR")
    optimizer_state: Literal["keep", "reset"] = Field(
        "keep", description="keep the optimizer's state (momentum) over rounds, or reset it each round"
    )
    head_loss: Literal["cross-entropy", "logit-adjusted"] = Field(
        "cross-entropy", description="plain loss, or loss with the site's class prior added to the logits"
    )
    class_weights: Literal["none", "balanced"] = Field("none", description="weigh classes inversely to their frequency")
    sampling: Literal["shuffle", "balanced"] = Field(
        "shuffle", description="go through the data in random order, or draw classes equally often"
    )
    augmentation: tuple[str, ...] = Field(
        (),
        description="for images: horizontal-flip, vertical-flip, crop:PIXELS, rotation:DEGREES, jitter:STRENGTH",
    )
    early_stopping: int = Field(
        0, ge=0, description="stop after this many evaluations without better validation accuracy; 0 is never"
    )
    participation: float = Field(
        1.0, gt=0, le=1, description="fraction of sites that train in a round of a centralized method"
    )

    @field_validator("schedule")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        learning_rate_factor(value, 0, 1)
        return value


def check_one_correction(training: TrainingSettings) -> None:
    """Refuse to correct for the class prior twice.

    Raises:
        ValueError: loss with logit adjustment together with class weights or balanced sampling.
    """
    balances = (training.class_weights, training.sampling) != ("none", "shuffle")
    if training.head_loss == "logit-adjusted" and balances:
        raise ValueError(
            "training.head_loss = 'logit-adjusted' corrects for the class prior already; "
            "leave class_weights at 'none' and sampling at 'shuffle'"
        )


def learning_rate_factor(schedule: str, round_index: int, rounds: int) -> float:
    """What the learning rate is multiplied with in a round (counted from 0) of ``rounds``.

    Raises:
        ValueError: ``schedule`` is none of ``constant``, ``cosine``, ``step:EVERY:FACTOR``.
    """
    match schedule.split(":"):
        case ["constant"]:
            return 1.0
        case ["cosine"]:
            return 0.5 * (1 + math.cos(math.pi * round_index / rounds))
        case ["step", every, factor] if every.isdecimal() and int(every) > 0 and _is_number(factor):
            return float(factor) ** (round_index // int(every))
        case _:
            raise ValueError("a schedule is constant, cosine or step:EVERY:FACTOR, for example step:10:0.5")


def _is_number(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
