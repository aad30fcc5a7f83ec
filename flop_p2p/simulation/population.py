"""All sites of a simulation in memory: bodies and heads as rows of two matrices, models as views into them."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from flop_p2p.config import ModelSettings
from flop_p2p.learning import Samples
from flop_p2p.models import build_model, default_model, load_weights
from flop_p2p.partial import Split, bind, flatten, share_everything, split_model
from flop_p2p.simulation.methods import Method


@dataclass(frozen=True)
class Blueprint:
    """The common start of all sites: a model, its split, and which of its parameters count as head.

    ``head`` names the private layers even where the full model is shared, so that they can be fine-tuned.
    """

    name: str
    template: nn.Module
    split: Split
    head: frozenset[str]


def build_blueprint(settings: ModelSettings, method: Method, samples: Samples, seed: int) -> Blueprint:
    """Model, initial weights and split, the same for equal settings and seed.

    Raises:
        ModelError: the model cannot be built, or its weights cannot be loaded.
        SplitError: the private globs do not fit the model.
    """
    name = settings.name or default_model(samples.sample_shape)
    template = build_model(name, samples.sample_shape, samples.outputs, seed)
    partial = split_model(template, settings.private, settings.batch_norm)
    head = frozenset(partial.head.names)
    if settings.weights is not None:
        load_weights(template, settings.weights, optional=head)
    split = share_everything(template, settings.batch_norm) if method.shares == "model" else partial
    return Blueprint(name, template.to(samples.inputs.device), split, head)


class Population:
    """Models of ``sites`` sites, all with the blueprint's initial values.

    Attributes:
        bodies: ``[sites, parameters]``, float32. What is exchanged, and nothing else.
        heads: ``[sites, head parameters]``, float32. Never mixed.
        models: one a site; training one writes into its rows.
    """

    def __init__(self, blueprint: Blueprint, sites: int) -> None:
        self.split = blueprint.split
        self.bodies = _repeat(flatten(blueprint.template, self.split.body), sites)
        self.heads = _repeat(flatten(blueprint.template, self.split.head), sites)
        self.models = [copy.deepcopy(blueprint.template) for _ in range(sites)]
        for model, body, head in zip(self.models, self.bodies, self.heads, strict=True):
            bind(model, self.split.body, body)
            bind(model, self.split.head, head)

    @property
    def body_bytes(self) -> int:
        """Bytes of one body on the wire."""
        return 4 * self.split.body.parameters

    def local_buffers(self, site: int) -> dict[str, Tensor]:
        """The integer buffers of one site's model, by name."""
        state = self.models[site].state_dict()
        return {name: state[name] for name in self.split.local}

    def load(self, bodies: Tensor, heads: Tensor, local: Sequence[dict[str, Tensor]]) -> None:
        """Take over values saved earlier, in place."""
        self.bodies.copy_(bodies)
        self.heads.copy_(heads)
        for site, buffers in enumerate(local):
            for name, buffer in self.local_buffers(site).items():
                buffer.copy_(buffers[name])


def _repeat(vector: Tensor, sites: int) -> Tensor:
    return torch.stack([vector] * sites)
