"""A site's own data: the same split as in a simulation, the federation's classes, and a clear line for what differs."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file, save_file

from flop_p2p.config import DataSettings
from flop_p2p.config.federation import SampleSettings
from flop_p2p.config.site import SiteDataSettings
from flop_p2p.data import (
    Dataset,
    FederatedData,
    SiteSplit,
    export_site,
    load_federated,
    load_site_data,
    sample_settings,
)
from flop_p2p.errors import ConfigError, DataError, RunError

Arrays = dict[str, np.ndarray]
TABLE = "label,age,crp\nill,61,1.5\nwell,40,0.2\nill,55,10\nill,50,3\nwell,33,0.1\nwell,35,0.4\nill,70,8\nill,71,9\n"


def agreed(names: tuple[str, ...], shape: tuple[int, ...], task: str = "multiclass", **more: Any) -> SampleSettings:
    return SampleSettings(task=task, class_names=names, shape=shape, **more)  # type: ignore[arg-type]


def load(samples: SampleSettings, name: str = "Rome", seed: int = 3, **settings: Any) -> FederatedData:
    return load_site_data(SiteDataSettings(**settings), samples, name, seed)


def parts(site: SiteSplit) -> list[list[int]]:
    return [site.train.tolist(), site.validation.tolist(), site.test.tolist()]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "blood.csv").write_text(TABLE)
    return tmp_path / "blood.csv"


# The readers of simulations


def test_the_split_is_that_of_a_simulation() -> None:
    split = (0.6, 0.1, 0.3)
    simulated = load_federated(DataSettings(source="digits", sites=1, split=split), 3, ["Rome"])
    samples = sample_settings(simulated)
    own = load(samples, source="digits", split=split)
    assert parts(own.sites[0]) == parts(simulated.sites[0])
    assert own.sites[0].name == "Rome"
    assert parts(load(samples, "Oslo", source="digits", split=split).sites[0]) != parts(own.sites[0])
    assert parts(load(samples, seed=4, source="digits", split=split).sites[0]) != parts(own.sites[0])


def test_classes_are_in_the_order_of_the_federation(table: Path) -> None:
    data = load(agreed(("unclear", "well", "ill"), (2,)), source="csv", path=table)
    assert data.dataset.class_names == ("unclear", "well", "ill")
    assert data.dataset.labels.tolist() == [2, 1, 2, 2, 1, 1, 2, 2]
    assert data.dataset.task == "multiclass"


def test_a_site_may_have_one_class_alone(table: Path) -> None:
    table.write_text(TABLE.replace("ill", "well"))
    data = load(agreed(("ill", "well"), (2,), "binary"), source="csv", path=table)
    assert set(data.dataset.labels.tolist()) == {1}


def test_normalization_is_the_federations_or_the_sites_own(table: Path) -> None:
    own = load(agreed(("ill", "well"), (2,)), source="csv", path=table)
    train = own.dataset.inputs[own.sites[0].train]
    assert own.mean == pytest.approx(train.mean(axis=0), rel=1e-5)
    assert own.std == pytest.approx(train.std(axis=0), rel=1e-5)
    common = load(agreed(("ill", "well"), (2,), mean=(50, 2), std=(10, 0.5)), source="csv", path=table)
    assert (common.mean.tolist(), common.std.tolist()) == ([50, 2], [10, 0.5])
    assert (common.mean.dtype, common.std.dtype) == (np.float32, np.float32)


def test_a_limit_is_drawn_as_in_a_simulation() -> None:
    simulated = load_federated(DataSettings(source="digits", sites=1, limit_images=90), 3, ["Rome"])
    own = load(sample_settings(simulated), source="digits", limit_images=90)
    assert np.array_equal(own.dataset.inputs, simulated.dataset.inputs)
    assert parts(own.sites[0]) == parts(simulated.sites[0])


def test_images_in_files_take_the_size_and_channels_of_the_federation(image_folder: Path) -> None:
    Image.fromarray(np.full((9, 7), 10, np.uint8)).save(image_folder / "normal" / "larger.png")
    data = load(agreed(("pneumonia", "normal"), (3, 4, 4), "binary"), source="folder", path=image_folder)
    assert data.dataset.inputs.shape == (17, 3, 4, 4)
    brightness = data.dataset.inputs.mean(axis=(1, 2, 3))
    assert np.array_equal(brightness < 100, data.dataset.labels == 1)


def test_patients_stay_in_one_split(arrays: Arrays, write_npz: Callable[..., Path]) -> None:
    path = write_npz(arrays)
    own = load(agreed(("0", "1", "2"), (1, 6, 5)), source="medmnist", path=path)
    patients = own.dataset.patients
    assert patients is not None
    of_part = [set(patients[indices].tolist()) for indices in (own.sites[0].train, own.sites[0].test)]
    assert not of_part[0] & of_part[1]


@pytest.mark.parametrize(
    ("samples", "settings", "error", "message"),
    [
        (
            agreed(("ill", "sick"), (2,)),
            {},
            DataError,
            "blood.csv: class 'well' is not among those of the fed",
        ),
        (agreed(("ill", "well"), (3,)), {}, DataError, "blood.csv: samples have shape 2, those of the federation 3"),
        (agreed(("ill", "well"), (1, 8, 8)), {}, DataError, "have shape 2, those of the federation 1 x 8 x 8"),
        (agreed(("ill", "well"), (2,), "multilabel"), {}, DataError, "labels are binary, .* federation multilabel"),
        (agreed(("ill", "well"), (2,)), {"split": (0.9, 0.2, 0.1)}, ConfigError, "site Rome: data: split: "),
        (agreed(("ill", "well"), (2,)), {"path": None}, ConfigError, "site Rome: data.path is missing"),
        (agreed(("ill", "well"), (2,)), {"path": "absent.csv"}, DataError, "absent.csv"),
        (agreed(("ill", "well"), (2,)), {"source": "safetensors"}, DataError, "blood.csv: cannot read this file"),
    ],
)
def test_what_does_not_fit(
    table: Path, samples: SampleSettings, settings: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message) as caught:
        load(samples, **{"source": "csv", "path": table, **settings})
    assert "\n" not in str(caught.value)


def test_digits_of_another_size_are_refused() -> None:
    samples = agreed(tuple("0123456789"), (1, 28, 28))
    with pytest.raises(DataError, match="digits: samples have shape 1 x 8 x 8, those of the federation 1 x 28 x 28"):
        load(samples, source="digits")


# Files for one site


@pytest.fixture
def several_labels() -> FederatedData:
    """20 rows of 3 features with 2 labels each, at one site without validation samples."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, (20, 2)).astype(np.float32)
    dataset = Dataset("wards", generator.random((20, 3), np.float32), labels, ("cough", "fever"), "multilabel")
    site = SiteSplit("Rome", np.arange(0, 20, 2), np.arange(0), np.arange(1, 20, 2))
    return FederatedData(dataset, (site,), np.zeros(3, np.float32), np.ones(3, np.float32))


@pytest.fixture
def patients(several_labels: FederatedData) -> FederatedData:
    """The same with patients, of one to three samples each."""
    names = np.array([f"Patient No. {number // 4}" for number in range(20)])
    return replace(several_labels, dataset=replace(several_labels.dataset, patients=names))


@pytest.fixture
def site_file(tmp_path: Path) -> Path:
    """A table of two classes in the file of one site."""
    simulated = load_federated(DataSettings(source="breast-cancer", sites=2, limit_images=60), 0)
    export_site(simulated, simulated.sites[0], tmp_path / "site.safetensors")
    return tmp_path / "site.safetensors"


def test_a_file_brings_the_samples_of_its_site_and_their_split(tmp_path: Path) -> None:
    settings = DataSettings(source="digits", sites=3, partition="dirichlet:0.5")
    simulated = load_federated(settings, 0)
    for site in simulated.sites:
        path = tmp_path / f"{site.name}.safetensors"
        export_site(simulated, site, path)
        own = load(sample_settings(simulated), site.name, source="safetensors", path=path)
        assert own.sites[0].name == site.name
        for part in ("train", "validation", "test"):
            for field in ("inputs", "labels"):
                expected = getattr(simulated.dataset, field)[getattr(site, part)]
                found = getattr(own.dataset, field)[getattr(own.sites[0], part)]
                assert found.dtype == expected.dtype
                assert np.array_equal(found, expected)
        assert np.array_equal(own.mean, simulated.mean)
        assert np.array_equal(own.std, simulated.std)


def test_several_labels_in_another_order(tmp_path: Path, several_labels: FederatedData) -> None:
    path = tmp_path / "wards.safetensors"
    export_site(several_labels, several_labels.sites[0], path)
    own = load(agreed(("fever", "rash", "cough"), (3,), "multilabel"), source="safetensors", path=path)
    labels = own.dataset.labels[own.sites[0].train]
    assert labels.dtype == np.float32
    assert np.array_equal(labels[:, [2, 0]], several_labels.dataset.labels[::2])
    assert not labels[:, 1].any()
    assert len(own.sites[0].validation) == 0


def test_a_file_has_numbers_for_patients_and_no_names(tmp_path: Path, patients: FederatedData) -> None:
    path, site = tmp_path / "ward.safetensors", patients.sites[0]
    export_site(patients, site, path)
    assert patients.dataset.patients is not None
    for name in set(patients.dataset.patients.tolist()):
        assert name.encode() not in path.read_bytes()
    samples = agreed(patients.dataset.class_names, patients.dataset.inputs.shape[1:], patients.dataset.task)
    own = load(samples, source="safetensors", path=path)
    assert own.dataset.patients is not None
    for part in ("train", "validation", "test"):
        before = patients.dataset.patients[getattr(site, part)]
        after = own.dataset.patients[getattr(own.sites[0], part)]
        assert np.array_equal(before[:, None] == before, after[:, None] == after)


def change(path: Path, metadata: dict[str, str] | None = None, **arrays: np.ndarray | None) -> None:
    """Write the file again with other arrays (``train_inputs`` for ``train.inputs``; None removes one) or metadata."""
    content: dict[str, np.ndarray | None] = {**load_file(path)}
    content |= {name.replace("_", "."): array for name, array in arrays.items()}
    described = {"format": "flop-p2p site data 1", "task": "binary", "class_names": json.dumps(["malignant", "benign"])}
    kept = {name: array for name, array in content.items() if array is not None}
    save_file(kept, path, metadata=described | (metadata or {}))


ROW = np.zeros((1, 30), np.float32)
ONE = np.zeros(1, np.int64)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test_labels": None}, "holds .*, not inputs and labels of three splits"),
        ({"extra": ONE}, "holds extra, "),
        ({"train_patients": ONE}, "not inputs and labels and patients of three splits"),
        (
            {f"{part}_patients": np.zeros(3, np.int64) for part in ("train", "validation", "test")},
            r"train\.patients is \[3\] of int64; it must be \[\d+\] of int64",
        ),
        ({"train_inputs": ROW, "train_labels": np.zeros(2, np.int64)}, r"train.labels is \[2\] of int64; .* \[1\]"),
        ({"train_inputs": ROW, "train_labels": np.full(1, 2)}, "train.labels row 0: label 2 is not one of 0 to 1"),
        ({"train_inputs": ROW, "train_labels": np.full(1, -1)}, "label -1 is not one of 0 to 1"),
        ({"train_inputs": ROW, "train_labels": np.zeros(1, np.int32)}, r"of int32; .* of int64"),
        ({"train_inputs": ROW, "train_labels": np.zeros((1, 2), np.float32)}, r"train.labels is \[1, 2\] of float32"),
        ({"train_inputs": ROW * np.nan, "train_labels": ONE}, "train.inputs row 0 holds NaN"),
        (
            {"test_inputs": ROW + np.float32(np.inf), "test_labels": ONE},
            "test.inputs row 0 holds NaN or an infinite",
        ),
        ({"train_inputs": ROW.astype(np.float64), "train_labels": ONE}, "of float64; it must be images, uint8"),
        ({"train_inputs": np.zeros((1, 30), np.uint8), "train_labels": ONE}, "of uint8; it must be"),
        ({"train_inputs": np.zeros((1, 2, 3, 4), np.float32), "train_labels": ONE}, "of float32; it must be"),
        ({"test_inputs": ROW[:, :5], "test_labels": ONE}, r"samples of shape \[5\], train.inputs of \[30\]"),
        ({"train_inputs": ROW[:0], "train_labels": ONE[:0]}, "there are no training samples"),
        ({"test_inputs": ROW[:0], "test_labels": ONE[:0]}, "there are no test samples"),
        ({"metadata": {"format": "other"}}, "is no site data of this version"),
        ({"metadata": {"task": "regression"}}, "task is 'regression'; it must be multiclass, binary, multilabel"),
        ({"metadata": {"class_names": "malignant"}}, "class_names must be a list of text"),
        ({"metadata": {"class_names": "[1, 2]"}}, "class_names must be a list of text"),
        ({"metadata": {"class_names": '["benign", "benign"]'}}, "class_names names a class twice"),
    ],
)
def test_a_wrong_file_of_a_site(site_file: Path, changes: dict[str, Any], message: str) -> None:
    change(site_file, **changes)
    samples = agreed(("malignant", "benign"), (30,), "binary")
    with pytest.raises(DataError, match=message) as caught:
        load(samples, source="safetensors", path=site_file)
    assert str(site_file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_unchanged_copy_is_read(site_file: Path) -> None:
    before = load(agreed(("malignant", "benign"), (30,), "binary"), source="safetensors", path=site_file)
    change(site_file)
    after = load(agreed(("malignant", "benign"), (30,), "binary"), source="safetensors", path=site_file)
    np.testing.assert_array_equal(after.dataset.inputs, before.dataset.inputs)
    np.testing.assert_array_equal(after.sites[0].train, before.sites[0].train)


def test_damage_anywhere_is_found_or_harmless(site_file: Path) -> None:
    """A truncated or flipped file gives an error of ours or data within its bounds."""
    whole = site_file.read_bytes()
    samples = agreed(("malignant", "benign"), (30,), "binary")
    generator = np.random.default_rng(0)
    for _ in range(60):
        damaged = bytearray(whole)
        place = int(generator.integers(len(whole) if generator.random() < 0.3 else 700))
        if generator.random() < 0.3:
            del damaged[place:]
        else:
            damaged[place] ^= 1 << int(generator.integers(8))
        site_file.write_bytes(damaged)
        with contextlib.suppress(DataError):
            assert load(samples, source="safetensors", path=site_file).dataset.labels.max() <= 1


@pytest.mark.parametrize("settings", [{"limit_images": 10}, {"split": (0.5, 0.1, 0.4)}])
def test_a_file_with_a_split_cannot_be_split_again(site_file: Path, settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"data.{next(iter(settings))}: .* brings its own split"):
        load(agreed(("malignant", "benign"), (30,), "binary"), source="safetensors", path=site_file, **settings)


def test_a_file_that_cannot_be_written(tmp_path: Path, several_labels: FederatedData) -> None:
    with pytest.raises(RunError, match=r"absent/site\.safetensors: cannot be written"):
        export_site(several_labels, several_labels.sites[0], tmp_path / "absent" / "site.safetensors")
