"""The schema of a body: which tensors it holds, in which order, and a hash that two sites can compare."""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from math import prod


@dataclass(frozen=True)
class TensorSpec:
    """Name, shape and dtype (always ``float32``) of one tensor of a schema."""

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class Schema:
    """Ordered tensors that lie one after the other in a contiguous vector ``[parameters]``."""

    tensors: tuple[TensorSpec, ...]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """Tensor names in order."""
        return tuple(spec.name for spec in self.tensors)

    @cached_property
    def offsets(self) -> dict[str, tuple[int, int]]:
        """Where each tensor begins and ends in the vector."""
        offsets = {}
        start = 0
        for spec in self.tensors:
            offsets[spec.name] = (start, start + prod(spec.shape))
            start += prod(spec.shape)
        return offsets

    @cached_property
    def parameters(self) -> int:
        """Length of the vector."""
        return sum(prod(spec.shape) for spec in self.tensors)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 of the canonical form: equal exactly when names, order, shapes and dtypes are."""
        canonical = [[spec.name, list(spec.shape), spec.dtype] for spec in self.tensors]
        return hashlib.sha256(json.dumps(canonical, separators=(",", ":")).encode()).hexdigest()
