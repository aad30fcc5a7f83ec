"""One seed decides everything: each use of randomness derives its own independent stream from it."""

import zlib

import numpy as np


def derive(seed: int, *purpose: str | int) -> np.random.Generator:
    """A generator for one purpose, for example ``derive(seed, "batches", site, round)``.

    Streams of different purposes are independent (``numpy.random.SeedSequence``), so that adding a use
    of randomness somewhere changes no other stream. Give all purposes with the same first word the same number
    of parts: a trailing 0 alone makes no difference.
    """
    keys = [zlib.crc32(part.encode()) if isinstance(part, str) else part for part in purpose]
    return np.random.default_rng(np.random.SeedSequence([seed, *keys]))


def derive_int(seed: int, *purpose: str | int) -> int:
    """A 63-bit integer for libraries that take a seed of their own, such as ``torch.manual_seed``."""
    return int(derive(seed, *purpose).integers(2**63 - 1))
