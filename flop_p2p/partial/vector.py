"""The contiguous vector behind a schema: a model's tensors become views into it, so nothing is ever copied."""

import torch
from torch import Tensor, nn

from flop_p2p.errors import SplitError
from flop_p2p.partial.schema import Schema


def flatten(module: nn.Module, schema: Schema) -> Tensor:
    """A new float32 vector ``[parameters]`` with the values that ``module`` has now."""
    state = module.state_dict()
    if not schema.tensors:
        return torch.empty(0)
    return torch.cat([state[name].reshape(-1) for name in schema.names])


def bind(module: nn.Module, schema: Schema, vector: Tensor) -> None:
    """Turn the tensors of ``schema`` in ``module`` into views of ``vector``, whose values they take.

    From then on training writes into ``vector`` and a change of ``vector`` changes the model. Bind before
    an optimizer is made: optimizer state belongs to the tensors' values, not to their storage.

    Args:
        vector: ``[parameters]``, float32, contiguous.

    Raises:
        SplitError: ``vector`` does not fit the schema.
    """
    if vector.shape != (schema.parameters,) or vector.dtype != torch.float32 or not vector.is_contiguous():
        raise SplitError(
            f"a body of {schema.parameters} float32 numbers is needed, got {tuple(vector.shape)} {vector.dtype}"
        )
    state = module.state_dict(keep_vars=True)
    for spec in schema.tensors:
        start, end = schema.offsets[spec.name]
        state[spec.name].data = vector[start:end].view(spec.shape)
