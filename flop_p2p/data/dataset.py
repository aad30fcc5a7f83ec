"""A data set in memory, whatever it was read from."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Task = Literal["multiclass", "binary", "multilabel"]
Array = NDArray[Any]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class Dataset:
    """Samples with labels, and the hospital and patient of each where the source knows them.

    ``inputs`` are images, uint8 ``[samples, channels, height, width]``, or a table, float32
    ``[samples, features]``. ``labels`` are int64 ``[samples]``, or for ``multilabel`` float32
    ``[samples, classes]`` of 0 and 1.
    """

    name: str
    inputs: Array
    labels: Array
    class_names: tuple[str, ...]
    task: Task
    sites: Array | None = None
    patients: Array | None = None

    @property
    def is_image(self) -> bool:
        """Whether the inputs are images rather than rows of a table."""
        return self.inputs.ndim == 4

    def take(self, indices: Indices) -> "Dataset":
        """The data set with these samples only, in this order."""
        return Dataset(
            self.name,
            self.inputs[indices],
            self.labels[indices],
            self.class_names,
            self.task,
            None if self.sites is None else self.sites[indices],
            None if self.patients is None else self.patients[indices],
        )


def single_label_task(class_names: Sequence[str]) -> Task:
    """``binary`` for up to two classes, ``multiclass`` for more."""
    return "binary" if len(class_names) <= 2 else "multiclass"


def membership(labels: Array, classes: int) -> Array:
    """Which sample has which class, bool ``[samples, classes]``, for either kind of labels."""
    member: Array = labels > 0 if labels.ndim == 2 else labels[:, None] == np.arange(classes)
    return member
