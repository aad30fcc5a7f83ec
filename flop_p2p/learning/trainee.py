"""A model in training: its parameters by part, its BatchNorm layers, and its optimizer."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from flop_p2p.config import TrainingSettings
from flop_p2p.learning.optimizer import Optimizer


class Trainee:
    """A model that is trained in place; several learners may take turns at one whose tensors are bound anew.

    Args:
        head: names of the model's private parameters.

    Attributes:
        names: of the trainable parameters, in the order of the optimizer's state.
        body, head: the trainable parameters of each part.
        shared_norms: the BatchNorm layers whose running statistics are not private.
    """

    def __init__(self, model: nn.Module, head: Collection[str], settings: TrainingSettings) -> None:
        self.model = model
        trained = {key: tensor for key, tensor in model.named_parameters() if tensor.requires_grad}
        self.names = tuple(trained)
        self.body = [tensor for key, tensor in trained.items() if key not in head]
        self.head = [tensor for key, tensor in trained.items() if key in head]
        self.shared_norms = [
            layer
            for key, layer in model.named_modules()
            if isinstance(layer, _BatchNorm) and f"{key}.running_mean" not in head
        ]
        self.optimizer = Optimizer(list(trained.values()), settings)

    @property
    def finite(self) -> bool:
        """No trainable weight is NaN or infinite."""
        return all(bool(tensor.isfinite().all()) for tensor in self.body + self.head)

    @contextmanager
    def frozen(self, parameters: Sequence[nn.Parameter], norms: Sequence[nn.Module] = ()) -> Iterator[None]:
        """Leave these parameters, and the running statistics of these BatchNorm layers, as they are."""
        for parameter in parameters:
            parameter.requires_grad_(False)
        for norm in norms:
            norm.eval()
        try:
            yield
        finally:
            for parameter in parameters:
                parameter.requires_grad_(True)
            for norm in norms:
                norm.train()
