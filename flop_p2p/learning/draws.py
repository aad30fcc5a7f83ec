"""Random numbers of differentially private training: from a seed in a simulation, from the operating system in a node.

Whoever knows the noise can subtract it, and neighbours know the federation's seed. So a node's noise and sampling come
from ChaCha20 (RFC 8439) under keys of `os.urandom`, a fresh one for every use: nothing is kept that could come again.
"""

import os
from typing import Protocol

import numpy as np
import torch
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from torch import Tensor

from flop_p2p.seeding import derive, derive_int

BLOCK = 1 << 20  # numbers drawn at a time, so that the scratch memory stays small
KEY_BYTES, NONCE_BYTES = 32, 16


class Draws(Protocol):
    """Where random numbers come from. ``round_index`` and ``step`` count from 0."""

    def uniform(self, purpose: str, round_index: int, step: int, count: int) -> np.ndarray:
        """Independent numbers from [0, 1), float64 ``[count]``."""

    def normal(self, round_index: int, step: int, count: int) -> Tensor:
        """Independent standard normal numbers, float32 ``[count]``, on the processor."""

    def generator_seed(self, round_index: int, step: int) -> int:
        """A seed for torch's own generators, from which dropout and augmentation draw."""


class SeededDraws:
    """Numbers that the seed of a simulation decides: such a run can be repeated, and protects nobody from who knows it.

    Args:
        name: the site; each has streams of its own.
    """

    def __init__(self, seed: int, name: str) -> None:
        self._seed, self._name = seed, name

    def uniform(self, purpose: str, round_index: int, step: int, count: int) -> np.ndarray:
        """See `Draws.uniform`."""
        return derive(self._seed, f"privacy {purpose}", self._name, round_index, step).random(count)

    def normal(self, round_index: int, step: int, count: int) -> Tensor:
        """See `Draws.normal`."""
        generator = torch.Generator()
        generator.manual_seed(derive_int(self._seed, "privacy noise", self._name, round_index, step))
        return torch.randn(count, generator=generator)

    def generator_seed(self, round_index: int, step: int) -> int:
        """See `Draws.generator_seed`."""
        return derive_int(self._seed, "privacy torch", self._name, round_index, step)


class SecretDraws:
    """Numbers that nobody can know or draw again. They depend on no argument but ``count``."""

    def uniform(self, purpose: str, round_index: int, step: int, count: int) -> np.ndarray:  # noqa: ARG002
        """See `Draws.uniform`; multiples of 2^-53."""
        return _uniform(count)

    def normal(self, round_index: int, step: int, count: int) -> Tensor:  # noqa: ARG002
        """See `Draws.normal`; by the transform of Box and Muller (1958), in float64."""
        normal = torch.empty(count)
        for start in range(0, count, BLOCK):
            block = normal[start : start + BLOCK]
            half = (len(block) + 1) // 2
            radius, angle = torch.from_numpy(_uniform(2 * half)).view(2, half)
            radius = torch.sqrt(-2 * torch.log1p(-radius))
            angle = 2 * torch.pi * angle
            block.copy_(torch.cat([radius * angle.cos(), radius * angle.sin()])[: len(block)])
        return normal

    def generator_seed(self, round_index: int, step: int) -> int:  # noqa: ARG002
        """See `Draws.generator_seed`."""
        return int.from_bytes(os.urandom(8)) >> 1


def _uniform(count: int) -> np.ndarray:
    """Secret multiples of 2^-53 in [0, 1), float64 ``[count]``."""
    stream = Cipher(algorithms.ChaCha20(os.urandom(KEY_BYTES), bytes(NONCE_BYTES)), mode=None).encryptor()
    words = np.frombuffer(stream.update(bytes(8 * count)), dtype=np.uint64)
    uniform: np.ndarray = (words >> np.uint64(11)) * 2.0**-53
    return uniform
