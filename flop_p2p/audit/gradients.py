"""The attacked model as a function of its weights: gradients of a batch that can be differentiated once more."""

import copy
from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, replace_all_batch_norm_modules_
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from flop_p2p.data.dataset import Task
from flop_p2p.errors import ConfigError
from flop_p2p.learning import Blueprint

Weights = Mapping[str, Tensor]  # a model's trainable parameters by name
Gradient = list[Tensor]  # one tensor for each of some names, in their order


class GradientModel:
    """Gradients of one model at any weights, for whoever trains it and for whoever attacks it.

    BatchNorm takes the statistics of the batch, as in training, and dropout is left out, at both: an attacker cannot
    know what it dropped, and so is favoured.

    Attributes:
        body, head: names of the trainable parameters that are shared, and of those that may be private.
        has_batch_norm: whether the samples of a batch depend on each other.
    """

    def __init__(self, blueprint: Blueprint, task: Task) -> None:
        self._module = copy.deepcopy(blueprint.template).eval()
        self._task = task
        self.has_batch_norm = any(isinstance(layer, _BatchNorm) for layer in self._module.modules())
        replace_all_batch_norm_modules_(self._module)
        trained = [name for name, tensor in self._module.named_parameters() if tensor.requires_grad]
        self.body = tuple(name for name in trained if name not in blueprint.head)
        self.head = tuple(name for name in trained if name in blueprint.head)

    @property
    def names(self) -> tuple[str, ...]:
        """All trainable parameters."""
        return self.body + self.head

    def output_layer(self) -> str | None:
        """The name of the last linear layer, or None if there is none or it does not belong to the head."""
        linear = [name for name, layer in self._module.named_modules() if isinstance(layer, nn.Linear)]
        return linear[-1] if linear and f"{linear[-1]}.weight" in self.head else None

    def logits(self, weights: Weights, inputs: Tensor) -> Tensor:
        """Outputs ``[batch, outputs]`` at ``weights``.

        Raises:
            ConfigError: BatchNorm met a batch of one sample.
        """
        try:
            result: Tensor = functional_call(self._module, dict(weights), (inputs,))
        except ValueError as error:
            if len(inputs) > 1 or not self.has_batch_norm:
                raise
            raise ConfigError(
                "audit: BatchNorm cannot train on a batch of one image, so there is no such gradient to attack; "
                "set audit.inversion_batches to 2 or more and leave labels out of audit.attacks"
            ) from error
        return result

    def gradient(
        self, weights: Weights, names: Sequence[str], inputs: Tensor, targets: Tensor, offset: Tensor | None = None
    ) -> Gradient:
        """The gradient of a batch's mean loss by the parameters ``names``, which can be differentiated by all else.

        Args:
            targets: probabilities ``[batch, outputs]``.
            offset: added to the logits ``[outputs]``: the class prior of logit adjustment.

        Raises:
            ConfigError: as `logits`.
        """
        at = dict(weights)
        for name in names:
            at[name] = weights[name].detach().requires_grad_()
        logits = self.logits(at, inputs)
        if offset is not None:
            logits = logits + offset
        multilabel = self._task == "multilabel"
        loss = (F.binary_cross_entropy_with_logits if multilabel else F.cross_entropy)(logits, targets)
        return list(torch.autograd.grad(loss, [at[name] for name in names], create_graph=True))


def cosine_distance(first: Gradient, second: Gradient) -> Tensor:
    """1 less the cosine of the angle between two gradients: 0 for the same direction; 1 for a gradient of 0."""
    product = sum_of(a * b for a, b in zip(first, second, strict=True))
    norms = sum_of(a.square() for a in first) * sum_of(b.square() for b in second)
    return 1 - product / norms.clamp(min=1e-24).sqrt()


def sum_of(tensors: Iterable[Tensor]) -> Tensor:
    """The sum over all numbers of all ``tensors``."""
    return torch.stack([tensor.sum() for tensor in tensors]).sum()
