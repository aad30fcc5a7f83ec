"""MedMNIST files: what is read, and one clear line for each kind of damage."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flop_p2p.config import DataSettings
from flop_p2p.data import load_federated
from flop_p2p.data.sources.medmnist import read_medmnist
from flop_p2p.errors import DataError

Arrays = dict[str, np.ndarray]
Write = Callable[..., Path]


def test_grey_images_with_sites_and_patients(arrays: Arrays, write_npz: Write) -> None:
    dataset = read_medmnist(write_npz(arrays))
    assert dataset.inputs.shape == (60, 1, 6, 5)
    assert dataset.inputs.dtype == np.uint8
    assert np.array_equal(dataset.inputs[36:45, 0], arrays["val_images"])
    assert dataset.labels.dtype == np.int64
    assert (dataset.name, dataset.task, dataset.class_names) == ("xrays", "multiclass", ("0", "1", "2"))
    assert dataset.sites is not None
    assert dataset.sites[45] == arrays["test_site"][0]
    assert dataset.patients is not None
    assert len(dataset.patients) == 60


def test_colour_binary_and_names(arrays: Arrays, write_npz: Write) -> None:
    for part in ("train", "val", "test"):
        arrays[f"{part}_images"] = np.stack([arrays[f"{part}_images"], *[arrays[f"{part}_images"] // 2] * 2], axis=3)
        arrays[f"{part}_labels"] = arrays[f"{part}_labels"] % 2
    dataset = read_medmnist(write_npz(arrays, class_names=np.array(["normal", "pneumonia"])))
    assert dataset.inputs.shape == (60, 3, 6, 5)
    assert np.array_equal(dataset.inputs[0, 2], arrays["train_images"][0, :, :, 2])
    assert (dataset.task, dataset.class_names) == ("binary", ("normal", "pneumonia"))


def test_several_label_columns_are_multilabel(arrays: Arrays, write_npz: Write) -> None:
    for part in ("train", "val", "test"):
        arrays[f"{part}_labels"] = np.eye(4, dtype=np.uint8)[arrays[f"{part}_labels"][:, 0]]
    dataset = read_medmnist(write_npz(arrays))
    assert (dataset.task, dataset.labels.shape, dataset.labels.dtype) == ("multilabel", (60, 4), np.float32)
    arrays["val_labels"][2, 1] = 2
    with pytest.raises(DataError, match="val_labels row 2: label 2 is out of range; labels go from 0 to 1"):
        read_medmnist(write_npz(arrays))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train_images": None}, "train_images is missing; there are .*train_labels"),
        ({"val_labels": None}, "val_labels is missing"),
        ({"test_site": None}, "test_site is missing"),
        ({"val_images": np.zeros((9, 6, 5), np.float32)}, "val_images has type float32"),
        ({"val_images": np.zeros((9, 6, 4), np.uint8)}, r"val_images has shape \(6, 4\), of train_images \(6, 5\)"),
        ({"train_images": np.zeros((36, 6, 6, 6), np.uint8)}, "train_images is 36 x 6 x 6 x 6"),
        ({"test_images": np.zeros((14, 6, 5), np.uint8)}, "test_images has 14 images but test_labels has 15"),
        ({"val_labels": np.array([0.0, 1.5, 2] * 3)}, "val_labels is 9 of float64"),
        ({"val_labels": np.array([0, -1, 2] * 3)}, "val_labels row 1: label -1 is out of range"),
        ({"test_labels": np.array([0] * 14 + [9])}, "test_labels row 14: label 9 is out of range.*from 0 to 2"),
        ({"val_patient": np.array(["p1"])}, "val_patient must be 9 texts or integers"),
        ({"val_labels": np.array([None] * 9)}, "cannot read val_labels"),
        ({"class_names": np.array(["a", "b"])}, "row 2: label 2 is out of range; labels go from 0 to 1"),
        ({"class_names": np.array(["a", "a", "b"])}, "class_names must be 3 different names"),
        ({"class_names": np.arange(3)}, "class_names must be a list of text"),
    ],
)
def test_malformed_arrays(arrays: Arrays, write_npz: Write, changes: Arrays, message: str) -> None:
    path = write_npz(arrays, **changes)
    with pytest.raises(DataError, match=message) as caught:
        read_medmnist(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_only_one_class(arrays: Arrays, write_npz: Write) -> None:
    zeros = {f"{part}_labels": np.zeros_like(arrays[f"{part}_labels"]) for part in ("train", "val", "test")}
    path = write_npz({**arrays, **zeros})
    assert read_medmnist(path).class_names == ("0",), "a hospital of a federation may have one class alone"
    with pytest.raises(DataError, match=r"xrays\.npz: has only the class 0; at least two"):
        load_federated(DataSettings(source="medmnist", path=path), 0)


def test_files_that_are_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "xrays.npz"
    for content in (b"", b"not an archive", b"PK\x03\x04" + bytes(60)):
        path.write_bytes(content)
        with pytest.raises(DataError, match=r"truncated, corrupt or no \.npz"):
            read_medmnist(path)


def test_nothing_is_unpickled(tmp_path: Path, arrays: Arrays) -> None:
    marker = tmp_path / "executed"

    class Attack:
        def __reduce__(self) -> tuple[object, ...]:
            return (Path.touch, (marker,))

    hidden = np.empty(36, object)
    hidden[:] = Attack()
    np.savez(tmp_path / "evil.npz", **{**arrays, "train_labels": hidden})
    with pytest.raises(DataError, match="cannot read train_labels"):
        read_medmnist(tmp_path / "evil.npz")
    assert not marker.exists()


def test_damage_anywhere_is_found_or_harmless(arrays: Arrays, write_npz: Write) -> None:
    path = write_npz(arrays)
    whole = read_medmnist(path)
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(400):
        damaged = bytearray(content)
        if rng.random() < 0.5:
            damaged = damaged[: rng.integers(len(content))]
        else:
            damaged[rng.integers(len(content))] ^= int(rng.integers(1, 256))
        path.write_bytes(damaged)
        try:
            read = read_medmnist(path)
        except DataError:
            continue
        # Harmless: a time stamp, or the name of a part, which is then missing as a whole.
        assert np.isin(read.inputs.reshape(len(read.inputs), -1), whole.inputs).all()
        assert len(read.inputs) == 60 or len(read.inputs) in (36, 45, 51)
