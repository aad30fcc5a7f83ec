"""The common start of all sites: a model with its initial weights and its split, equal for equal settings."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from flop_p2p.config import ModelSettings
from flop_p2p.models import build_model, default_model, load_weights, replace_batch_norm
from flop_p2p.partial import Split, share_everything, split_model


@dataclass(frozen=True)
class Blueprint:
    """A model, its split, and which of its parameters count as head.

    ``head`` names the private layers even where the full model is shared, so that they can be fine-tuned.
    ``group_norms`` counts the BatchNorm layers that became GroupNorm.
    """

    name: str
    template: nn.Module
    split: Split
    head: frozenset[str]
    group_norms: int = 0

    @property
    def remark(self) -> str | None:
        """What a user should know of the model, in one line; None if nothing."""
        if not self.group_norms:
            return None
        return (
            f"{self.name}: GroupNorm takes the place of {self.group_norms} BatchNorm layers, as differential privacy "
            "allows no layer that mixes the images of a batch"
        )


def build_blueprint(
    settings: ModelSettings,
    sample_shape: Sequence[int],
    outputs: int,
    seed: int,
    *,
    shares_all: bool = False,
    differential: bool = False,
    folder: Path = Path(),
) -> Blueprint:
    """Model, initial weights and split, on the processor.

    Args:
        shares_all: exchange the full model instead of the body.
        differential: it is trained with differential privacy, which does without BatchNorm. Weights of a file that has
            BatchNorm are taken over, their scales included.
        folder: where a relative path of pretrained weights begins.

    Raises:
        ModelError: the model cannot be built, or its weights cannot be loaded.
        SplitError: the private globs do not fit the model.
    """
    name = settings.name or default_model(sample_shape)
    template = build_model(name, sample_shape, outputs, seed)
    group_norms = replace_batch_norm(template) if differential else 0
    partial = split_model(template, settings.private, settings.batch_norm)
    head = frozenset(partial.head.names)
    if settings.weights is not None:
        load_weights(template, folder / settings.weights, optional=head)
    split = share_everything(template, settings.batch_norm) if shares_all else partial
    return Blueprint(name, template, split, head, group_norms)
