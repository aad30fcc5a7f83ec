"""All sites of a simulation in memory: bodies and heads as rows of two matrices, models as views into them."""

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from flop_p2p.learning import Blueprint
from flop_p2p.partial import bind, flatten


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
