"""From settings to sites: seeds, normalization, limits, paths."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from flop_p2p.config import DataSettings
from flop_p2p.data import FederatedData, load_federated
from flop_p2p.data.sources.read import with_channels
from flop_p2p.data.subset import draw_subset
from flop_p2p.errors import ConfigError, DataError

Arrays = dict[str, np.ndarray]


def load(seed: int = 0, **more: object) -> FederatedData:
    return load_federated(DataSettings(**more), seed)  # type: ignore[arg-type]


def test_digits() -> None:
    data = load(sites=5)
    assert data.dataset.inputs.shape == (1797, 1, 8, 8)
    assert data.dataset.inputs.max() == 255
    assert [site.name for site in data.sites] == [f"hospital-{number}" for number in range(1, 6)]
    used = np.concatenate([np.concatenate([site.train, site.validation, site.test]) for site in data.sites])
    assert np.array_equal(np.sort(used), np.arange(1797))
    assert data.pooled_test.tolist() == sorted(np.concatenate([site.test for site in data.sites]).tolist())
    counts = data.class_counts()
    assert counts.shape == (5, 10)
    assert counts.sum() == sum(len(site.train) for site in data.sites)
    assert counts[1, 3] == (data.dataset.labels[data.sites[1].train] == 3).sum()


def test_the_seed_decides_everything() -> None:
    first, again, other = (load(seed, limit_images=500, partition="dirichlet:1") for seed in (4, 4, 5))
    assert all(
        np.array_equal(getattr(a, part), getattr(b, part))
        for a, b in zip(first.sites, again.sites, strict=True)
        for part in ("train", "validation", "test")
    )
    assert np.array_equal(first.dataset.inputs, again.dataset.inputs)
    assert not np.array_equal(first.dataset.inputs, other.dataset.inputs)


def test_a_site_keeps_its_split_when_others_are_left_out() -> None:
    whole, part = load(), load(exclude_sites=("hospital-3",))
    assert len(part.sites) == 7
    assert np.array_equal(whole.sites[4].test, part.sites[3].test)


def test_normalization_of_images_comes_from_training_samples_only() -> None:
    data = load()
    train = np.concatenate([site.train for site in data.sites])
    pixels = data.dataset.inputs[train].astype(np.float64) / 255
    assert data.mean == pytest.approx([pixels.mean()], rel=1e-6)
    assert data.std == pytest.approx([pixels.std()], rel=1e-6)
    assert (data.mean.dtype, data.std.dtype) == (np.float32, np.float32)


def test_normalization_of_tables(tmp_path: Path) -> None:
    path = tmp_path / "blood.csv"
    rng = np.random.default_rng(0)
    values = rng.normal(50, 7, size=100)
    path.write_text("label,x,constant\n" + "".join(f"{n % 2},{value},3\n" for n, value in enumerate(values)))
    data = load(source="csv", path=path, sites=2)
    train = np.concatenate([site.train for site in data.sites])
    assert data.mean == pytest.approx([values[train].mean(), 3], rel=1e-5)
    assert data.std == pytest.approx([values[train].std(), 1], rel=1e-5)


def test_no_patient_is_in_two_splits(arrays: Arrays, write_npz: Callable[..., Path]) -> None:
    path = write_npz(arrays)
    for partition in ("natural", "iid", "quantity:2"):
        data = load(source="medmnist", path=path, partition=partition, sites=3)
        patients = data.dataset.patients
        assert patients is not None
        owners = [
            {name for site in data.sites for name in patients[getattr(site, part)]}
            for part in ("train", "validation", "test")
        ]
        assert sum(map(len, owners)) == 20


def test_a_site_without_test_samples_is_named_with_the_remedy(arrays: Arrays, write_npz: Callable[..., Path]) -> None:
    arrays["train_site"] = np.array(["Rome"] * 35 + ["Oslo"])
    arrays["val_site"] = np.array(["Rome"] * 9)
    arrays["test_site"] = np.array(["Bonn"] * 15)
    path = write_npz(arrays)
    with pytest.raises(DataError, match=r"site Oslo ends without test samples, it has 1 .*--min-site-images 2"):
        load(source="medmnist", path=path, partition="natural")
    assert len(load(source="medmnist", path=path, partition="natural", min_site_images=2).sites) == 2


def test_paths_are_looked_up_under_the_data_variable(
    arrays: Arrays, write_npz: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_npz(arrays)
    monkeypatch.delenv("FLOP_P2P_DATA", raising=False)
    with pytest.raises(DataError, match=r"no file at xrays\.npz \(\$FLOP_P2P_DATA, .* is not set\); .*--data-path"):
        load(source="medmnist", path="xrays.npz", sites=2)
    monkeypatch.setenv("FLOP_P2P_DATA", str(tmp_path))
    assert len(load(source="medmnist", path="xrays.npz", sites=2).dataset.labels) == 60
    with pytest.raises(DataError, match=r"no file at other\.npz and .*other\.npz; .*--data-path"):
        load(source="medmnist", path="other.npz")
    with pytest.raises(DataError, match="needs a file as --data-path"):
        load(source="medmnist", path=tmp_path)
    with pytest.raises(ConfigError, match="--data idx needs --data-path with its folder"):
        load(source="idx")


@pytest.mark.parametrize("limit", [1, 97, 500, 1797, 5000])
def test_limits_are_stratified(limit: int) -> None:
    labels = load().dataset.labels
    chosen = draw_subset(labels, limit, np.random.default_rng(0))
    assert len(np.unique(chosen)) == min(limit, len(labels))
    share = np.bincount(labels) * min(limit, len(labels)) / len(labels)
    assert np.abs(np.bincount(labels[chosen], minlength=10) - share).max() <= 1


def test_channels() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (3, 1, 4, 4), dtype=np.uint8)
    colour = with_channels(grey, 3)
    assert colour.shape == (3, 3, 4, 4)
    assert np.array_equal(with_channels(colour, 1), grey)
    assert load(channels=3).dataset.inputs.shape == (1797, 3, 8, 8)
