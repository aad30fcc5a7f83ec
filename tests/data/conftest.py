"""Small data sets that the tests write themselves, and the real ones where they are present."""

import gzip
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Arrays = dict[str, np.ndarray]


@pytest.fixture
def arrays() -> Arrays:
    """A MedMNIST file with 60 images of 3 classes, 6 x 5 pixels, from 4 hospitals and 20 patients."""
    rng = np.random.default_rng(7)
    content: Arrays = {}
    for part, count in (("train", 36), ("val", 9), ("test", 15)):
        content[f"{part}_images"] = rng.integers(0, 256, (count, 6, 5), dtype=np.uint8)
        content[f"{part}_labels"] = (np.arange(count) % 3).astype(np.uint8)[:, None]
        content[f"{part}_patient"] = np.array([f"p{number % 20}" for number in range(count)])
        content[f"{part}_site"] = np.array([["Rome", "Bonn", "Oslo", "Kyiv"][number % 4] for number in range(count)])
    return content


@pytest.fixture
def write_npz(tmp_path: Path) -> Callable[..., Path]:
    """Write arrays to a file and say where; ``changes`` replace arrays, None removes one."""

    def write(arrays: Arrays, **changes: Any) -> Path:
        content = {name: array for name, array in {**arrays, **changes}.items() if array is not None}
        np.savez_compressed(tmp_path / "xrays.npz", **content)
        return tmp_path / "xrays.npz"

    return write


def idx_bytes(array: np.ndarray) -> bytes:
    """An idx file of unsigned bytes."""
    return bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()


@pytest.fixture
def idx_folder(tmp_path: Path) -> Path:
    """The four files of MNIST, with 40 and 20 images of 4 x 4 pixels; the test files are gzipped."""
    rng = np.random.default_rng(1)
    for part, count, compress in (("train", 40, False), ("t10k", 20, True)):
        images = rng.integers(0, 256, (count, 4, 4), dtype=np.uint8)
        labels = (np.arange(count) % 10).astype(np.uint8)
        for name, array in ((f"{part}-images-idx3-ubyte", images), (f"{part}-labels-idx1-ubyte", labels)):
            content = idx_bytes(array)
            (tmp_path / (name + ".gz" * compress)).write_bytes(gzip.compress(content) if compress else content)
    return tmp_path


@pytest.fixture
def image_folder(tmp_path: Path) -> Path:
    """Two classes with 8 grey PNGs each, of 6 x 6 pixels: value 10 for normal, 200 for pneumonia."""
    for name, value in (("normal", 10), ("pneumonia", 200)):
        (tmp_path / name).mkdir()
        for number in range(8):
            Image.fromarray(np.full((6, 6), value, np.uint8)).save(tmp_path / name / f"{number}.png")
    return tmp_path


@pytest.fixture
def real_data(monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of real data that ``$FLOP_P2P_DATA`` names; the test is skipped without it."""
    root = os.environ.get("FLOP_P2P_DATA")
    if not root or not Path(root).is_dir():
        pytest.skip("$FLOP_P2P_DATA names no folder with the real data sets")
    return Path(root)
