"""A data set as tensors on a device, read in batches that are normalized on the way to the model."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from flop_p2p.data import FederatedData
from flop_p2p.data.dataset import Task


class Samples:
    """All samples of a data set on one device, shared by every site of a simulation.

    Images stay uint8 (a quarter of the memory of float32) and are normalized batch by batch.

    Attributes:
        inputs: uint8 images ``[samples, channels, height, width]`` or float32 tables ``[samples, features]``.
        labels: int64 ``[samples]``, or float32 ``[samples, outputs]`` for ``multilabel``.
        outputs: number of classes or labels.
        patients: whose each sample is, ``[samples]``, where the source tells.
    """

    def __init__(self, data: FederatedData, device: torch.device) -> None:
        dataset = data.dataset
        self.task: Task = dataset.task
        self.outputs = len(dataset.class_names)
        self.patients = dataset.patients
        # Writable, or torch warns: files read in one piece come as read-only arrays.
        inputs = np.require(dataset.inputs, requirements=["C", "W"])
        # An axis of length one can have any stride, and by it torch chooses between memory formats, whose results
        # differ in the last bits; flattened and shaped again, equal samples are equal in this, too.
        self.inputs = torch.from_numpy(inputs.reshape(-1)).view(inputs.shape).to(device)
        self.labels = torch.from_numpy(np.require(dataset.labels, requirements=["C", "W"])).to(device)
        unit = 255.0 if self.inputs.dtype == torch.uint8 else 1.0
        self._scale = torch.from_numpy(1 / (unit * data.std)).float().to(device)
        self._shift = torch.from_numpy(-data.mean / data.std).float().to(device)

    @property
    def sample_shape(self) -> tuple[int, ...]:
        """``(features,)`` or ``(channels, height, width)``."""
        return tuple(self.inputs.shape[1:])

    def positions(self, indices: np.ndarray) -> Tensor:
        """``indices`` into the data set, int64 ``[n]``, on the device of the samples."""
        return torch.from_numpy(indices).to(self.inputs.device)

    def batch(self, indices: Tensor, augment: Callable[[Tensor], Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Normalized inputs, float32 ``[batch, ...]``, and labels of the samples at ``indices``.

        Images lie in memory with their channels last, the order in which convolutions and pooling are fastest.
        """
        inputs = self.inputs[indices]
        if augment is not None:
            inputs = augment(inputs)
        if inputs.dim() == 4:
            turned = inputs.permute(0, 2, 3, 1)
            inputs = turned.reshape(-1).view(turned.shape)  # of all strides that an axis of length one can have, these
        inputs = torch.addcmul(self._shift, inputs.float(), self._scale)
        return inputs.permute(0, 3, 1, 2) if inputs.dim() == 4 else inputs, self.labels[indices]
