"""idx files, gzipped or not, and what is wrong with them."""

import gzip
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flop_p2p.data.sources.idx import read_idx, read_idx_folder
from flop_p2p.errors import DataError

LABELS = "train-labels-idx1-ubyte"
IMAGES = "train-images-idx3-ubyte"


def test_four_files(idx_folder: Path) -> None:
    dataset = read_idx_folder(idx_folder)
    assert dataset.inputs.shape == (60, 1, 4, 4)
    assert dataset.labels[:12].tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1]
    assert (dataset.task, len(dataset.class_names)) == ("multiclass", 10)


def _with_byte(place: int, value: int) -> Callable[[bytes], bytes]:
    return lambda content: content[:place] + bytes([value]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("name", "damage", "message"),
    [
        (IMAGES, lambda content: content[:-1], "truncated or corrupt: the header says 40 x 4 x 4 = 640 .* are 639"),
        (IMAGES, lambda content: content + b"x", "the header says .* there are 641"),
        (IMAGES, lambda content: content[:10], "10 bytes, shorter than its header of 16"),
        (IMAGES, _with_byte(2, 0x0D), "starts with bytes 00000d03, not 00000803"),
        (IMAGES, _with_byte(4, 0xFF), "the header says 4278190120 x 4 x 4"),
        (LABELS, _with_byte(3, 3), "starts with bytes 00000803, not 00000801"),
        (LABELS, _with_byte(8 + 5, 77), "row 5: label 77 is out of range; labels go from 0 to 9"),
        (LABELS, lambda content: content[:7] + b"\x27" + content[8:-1], "40 images, but .* has 39 labels"),
        ("t10k-images-idx3-ubyte.gz", lambda content: content[:-5], "truncated or corrupt"),
        ("t10k-images-idx3-ubyte.gz", lambda content: b"junk" + content, "truncated or corrupt"),
        ("t10k-images-idx3-ubyte.gz", lambda content: content[:40] + b"12345" + content[45:], "corrupt"),
    ],
)
def test_damaged_files(idx_folder: Path, name: str, damage: Callable[[bytes], bytes], message: str) -> None:
    file = idx_folder / name
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=message) as caught:
        read_idx_folder(idx_folder)
    assert "\n" not in str(caught.value)


def test_missing_file(idx_folder: Path) -> None:
    (idx_folder / LABELS).unlink()
    with pytest.raises(DataError, match=f"neither {LABELS} nor {LABELS}.gz"):
        read_idx_folder(idx_folder)


def test_plain_and_gzipped_are_the_same(idx_folder: Path) -> None:
    plain = idx_folder / IMAGES
    (idx_folder / f"{IMAGES}.gz").write_bytes(gzip.compress(plain.read_bytes()))
    assert np.array_equal(read_idx(plain, 3), read_idx(idx_folder / f"{IMAGES}.gz", 3))
