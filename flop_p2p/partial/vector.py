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


class Binding:
    """The tensors of ``schema`` in ``module``, ready to become views of one vector after another."""

    def __init__(self, module: nn.Module, schema: Schema) -> None:
        self._schema = schema
        state = module.state_dict(keep_vars=True)
        self._places = [(state[spec.name], *schema.offsets[spec.name], spec.shape) for spec in schema.tensors]

    def to(self, vector: Tensor) -> None:
        """Turn the tensors into views of ``vector``, whose values they take.

        From then on training writes into ``vector`` and a change of ``vector`` changes the model.

        Args:
            vector: ``[parameters]``, float32, contiguous.

        Raises:
            SplitError: ``vector`` does not fit the schema.
        """
        parameters = self._schema.parameters
        if vector.shape != (parameters,) or vector.dtype != torch.float32 or not vector.is_contiguous():
            raise SplitError(
                f"a body of {parameters} float32 numbers is needed, got {tuple(vector.shape)} {vector.dtype}"
            )
        for tensor, start, end, shape in self._places:
            tensor.data = vector[start:end].view(shape)


def bind(module: nn.Module, schema: Schema, vector: Tensor) -> None:
    """Bind ``module`` to one vector for good; see `Binding`.

    Raises:
        SplitError: ``vector`` does not fit the schema.
    """
    Binding(module, schema).to(vector)
