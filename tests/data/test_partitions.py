"""Every partition is one: nothing twice, nothing lost, the same for the same seed, patients whole."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flop_p2p.config import DataSettings
from flop_p2p.data.dataset import Dataset
from flop_p2p.data.partition import EXTRA_PROBABILITY, class_counts, partition_sites
from flop_p2p.errors import ConfigError, DataError

SYNTHETIC = ("iid", "dirichlet:0.3", "dirichlet:100", "shards:1", "shards:2", "quantity:0.5")


def make_dataset(
    samples: int = 600, classes: int = 4, seed: int = 0, patients: int | None = None, sites: tuple[str, ...] = ()
) -> Dataset:
    rng = np.random.default_rng(seed)
    return Dataset(
        name="made",
        inputs=rng.normal(size=(samples, 3)).astype(np.float32),
        labels=rng.integers(classes, size=samples),
        class_names=tuple(f"class {number}" for number in range(classes)),
        task="multiclass" if classes > 2 else "binary",
        sites=np.array([sites[number % len(sites)] for number in range(samples)]) if sites else None,
        patients=rng.integers(patients, size=samples) if patients else None,
    )


def make_multilabel(samples: int = 300) -> Dataset:
    rng = np.random.default_rng(3)
    labels = (rng.random((samples, 3)) < 0.3).astype(np.float32)
    return Dataset("chests", rng.normal(size=(samples, 2)).astype(np.float32), labels, ("a", "b", "c"), "multilabel")


def partition(dataset: Dataset, kind: str, sites: int = 4, seed: int = 0, **more: object) -> dict[str, np.ndarray]:
    names = more.pop("site_names", None)
    chosen = DataSettings(partition=kind, sites=sites, **more)  # type: ignore[arg-type]
    return partition_sites(dataset, chosen, np.random.default_rng(seed), names)  # type: ignore[arg-type]


@settings(max_examples=80, deadline=None)
@given(
    kind=st.sampled_from(SYNTHETIC),
    sites=st.integers(1, 12),
    samples=st.integers(12, 300),
    patients=st.sampled_from([None, 5, 60]),
    seed=st.integers(0, 2**32),
    minimum=st.integers(1, 20),
    small=st.sampled_from(["drop", "join"]),
)
def test_is_a_partition(
    kind: str, sites: int, samples: int, patients: int | None, seed: int, minimum: int, small: str
) -> None:
    dataset = make_dataset(samples, patients=patients, seed=seed)
    try:
        found = partition(dataset, kind, sites, seed, min_site_images=minimum, small_sites=small)
    except DataError:
        assert small == "drop"  # the one error left: every site is too small
        return
    taken = np.concatenate(list(found.values()))
    assert len(np.unique(taken)) == len(taken)
    assert list(found) == sorted(found)
    assert all(np.all(np.diff(indices) > 0) for indices in found.values())
    if small == "join":
        assert len(taken) == samples
    else:
        assert all(len(indices) >= minimum for indices in found.values())
    if dataset.patients is not None:
        owners = [set(dataset.patients[indices].tolist()) for indices in found.values()]
        assert sum(map(len, owners)) == len(set().union(*owners))


@pytest.mark.parametrize("kind", SYNTHETIC)
def test_the_seed_decides(kind: str) -> None:
    dataset = make_dataset()
    first, again, other = (partition(dataset, kind, seed=seed, min_site_images=1) for seed in (5, 5, 6))
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert any(not np.array_equal(first[name], other.get(name)) for name in first)


def test_iid_sizes_differ_by_at_most_one() -> None:
    sizes = [len(indices) for indices in partition(make_dataset(603), "iid", sites=7).values()]
    assert sum(sizes) == 603
    assert max(sizes) - min(sizes) <= 1


def test_dirichlet_skew_grows_as_alpha_falls() -> None:
    dataset = make_dataset(8000)

    def largest_share(alpha: float) -> float:
        found = partition(dataset, f"dirichlet:{alpha}", sites=6, min_site_images=50)
        return float(np.mean([class_counts(dataset, own).max() / len(own) for own in found.values()]))

    assert largest_share(1000) < 0.3
    assert largest_share(0.1) > 0.6


def test_quantity_keeps_the_class_mix() -> None:
    dataset = make_dataset(4000)
    found = partition(dataset, "quantity:0.5", sites=5, seed=2, min_site_images=1)
    sizes = [len(own) for own in found.values()]
    assert max(sizes) > 4 * min(sizes)
    overall = class_counts(dataset, np.arange(4000)) / 4000
    for own in found.values():
        assert np.abs(class_counts(dataset, own) - overall * len(own)).max() <= 3


def test_shards_prefer_one_class() -> None:
    dataset = make_dataset(8000, classes=4)
    found = partition(dataset, "shards:1", sites=4)
    counts = np.stack([class_counts(dataset, own) for own in found.values()])
    favourite = counts.argmax(axis=1)
    assert sorted(favourite) == [0, 1, 2, 3]
    # The extra probability, and a quarter of the rest.
    expected = EXTRA_PROBABILITY + (1 - EXTRA_PROBABILITY) / 4
    assert counts.max(axis=1) / counts.sum(axis=0)[favourite] == pytest.approx(np.full(4, expected), abs=0.03)


def test_shards_take_no_more_classes_than_there_are() -> None:
    with pytest.raises(ConfigError, match="only 4 classes"):
        partition(make_dataset(), "shards:5")


def test_natural_sites_keep_their_names_and_samples() -> None:
    dataset = make_dataset(90, sites=("Rome", "Bonn", "Oslo"))
    found = partition(dataset, "natural")
    assert list(found) == ["Bonn", "Oslo", "Rome"]
    assert dataset.sites is not None
    assert all((dataset.sites[own] == name).all() for name, own in found.items())


def test_natural_needs_sites() -> None:
    with pytest.raises(ConfigError, match="--site-column"):
        partition(make_dataset(), "natural")


def test_small_sites_are_joined_to_other() -> None:
    dataset = make_dataset(100, sites=("Rome",) * 5 + ("Bonn",) * 5 + ("Oslo", "Kyiv"))
    found = partition(dataset, "natural", min_site_images=20, small_sites="join")
    assert list(found) == ["Bonn", "Rome", "other"]
    assert sum(map(len, found.values())) == 100


def test_a_site_called_other_takes_the_joined_ones() -> None:
    dataset = make_dataset(100, sites=("other",) * 5 + ("Bonn",) * 5 + ("Oslo",))
    found = partition(dataset, "natural", min_site_images=20, small_sites="join")
    assert list(found) == ["Bonn", "other"]
    assert sum(map(len, found.values())) == 100


def test_excluded_sites_go_first() -> None:
    dataset = make_dataset(90, sites=("Rome", "Bonn", "Oslo"))
    assert list(partition(dataset, "natural", exclude_sites=("Bonn",))) == ["Oslo", "Rome"]
    with pytest.raises(ConfigError, match=r"--exclude-site Paris.*Bonn, Oslo, Rome"):
        partition(dataset, "natural", exclude_sites=("Paris",))
    with pytest.raises(DataError, match="--exclude-site names them all"):
        partition(dataset, "natural", exclude_sites=("Rome", "Bonn", "Oslo"))


def test_names_are_padded_to_sort_by_number() -> None:
    assert list(partition(make_dataset(), "iid", sites=3)) == ["hospital-1", "hospital-2", "hospital-3"]
    many = list(partition(make_dataset(), "iid", sites=100))
    assert many[0] == "hospital-001"
    assert many == sorted(many)


def test_given_names() -> None:
    assert list(partition(make_dataset(), "iid", sites=2, site_names=["ward", "clinic"])) == ["clinic", "ward"]
    with pytest.raises(ConfigError, match="--sites 3"):
        partition(make_dataset(), "iid", sites=3, site_names=["ward", "clinic"])
    with pytest.raises(ConfigError, match="Bonn, Rome, but Bonn, Oslo are expected"):
        partition(make_dataset(40, sites=("Rome", "Bonn")), "natural", site_names=["Oslo", "Bonn"])


def test_an_empty_site_is_an_error_with_remedies() -> None:
    with pytest.raises(DataError, match=r"no sample for hospital-.*larger alpha than 0\.01.*--min-site-images 1"):
        partition(make_dataset(50), "dirichlet:0.01", sites=20)
    with pytest.raises(DataError, match="--min-site-images 400"):
        partition(make_dataset(600), "iid", sites=2, min_site_images=400)


@pytest.mark.parametrize("kind", ["iid", "quantity:5"])
def test_multilabel_partitions(kind: str) -> None:
    assert sum(map(len, partition(make_multilabel(), kind).values())) == 300


@pytest.mark.parametrize("kind", ["dirichlet:1", "shards:1"])
def test_multilabel_has_no_one_class_to_deal_by(kind: str) -> None:
    with pytest.raises(ConfigError, match="several labels"):
        partition(make_multilabel(), kind)


@pytest.mark.parametrize(
    "text", ["dirichlet", "dirichlet:0", "dirichlet:nan", "quantity:-1", "shards:0", "shards:1.5", "natural:1", ""]
)
def test_wrong_partitions_are_refused_with_the_settings(text: str) -> None:
    with pytest.raises(ValueError, match="a partition is iid"):
        DataSettings(partition=text)
