"""Memory that worker processes share with the process that forked them: anonymous, or a file for what is too large."""

import mmap
import os
import sys
import tempfile
from collections.abc import Sequence
from math import prod
from pathlib import Path

import torch
from torch import Tensor

from flop_p2p.errors import RunError

ALIGNMENT = 16  # numbers: 64 bytes, a cache line


def shared_rows(rows: int, numbers: int, device: torch.device, folder: Path | None = None) -> Tensor:
    """As `shared_tensor`, float32 ``[rows, numbers]``; every row begins at a multiple of 64 bytes.

    The last bits of a matrix product depend on where its operands lie. So they do not depend on which row a site has.
    """
    whole = -(-numbers // ALIGNMENT) * ALIGNMENT
    return shared_tensor((rows, whole), torch.float32, device, folder)[:, :numbers]


def shared_tensor(shape: Sequence[int], dtype: torch.dtype, device: torch.device, folder: Path | None = None) -> Tensor:
    """A tensor of zeros that forked processes write to together; on a GPU an ordinary one.

    Args:
        folder: where a file without a name keeps the numbers instead of memory; it is gone with the process. The
            system reads and writes pages of it as they are needed, so that it may be larger than memory.

    Raises:
        RunError: the file cannot be made.
    """
    size = prod(shape) * dtype.itemsize
    if device.type != "cpu" or not size:
        return torch.zeros(*shape, dtype=dtype, device=device)
    if folder is None:
        return torch.frombuffer(mmap.mmap(-1, size), dtype=dtype).view(*shape)
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.truncate(size)
            if sys.platform == "linux":
                os.posix_fallocate(file.fileno(), 0, size)  # a full disk is told of now, not by a crash later
            return torch.frombuffer(mmap.mmap(file.fileno(), size), dtype=dtype).view(*shape)
    except OSError as error:
        raise RunError(f"{folder}: cannot keep {size:,} bytes of bodies there ({error.strerror})") from error
