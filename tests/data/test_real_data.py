"""The real data sets, where `$FLOP_P2P_DATA` names their folder."""

from pathlib import Path

import numpy as np
import pytest

from flop_p2p.config import DataSettings
from flop_p2p.data import load_federated


@pytest.mark.parametrize("small", ["drop", "join"])
def test_covidx_has_eleven_sites_of_twenty_images(real_data: Path, small: str) -> None:
    path = real_data / "covidx-mini" / "covidx-mini_64.npz"
    if not path.exists():
        pytest.skip("covidx-mini is not there")
    chosen = DataSettings(source="medmnist", path=path, partition="natural", min_site_images=20, small_sites=small)
    data = load_federated(chosen, seed=0)
    names = [site.name for site in data.sites]
    assert len(names) == (11 if small == "drop" else 12)
    counts = data.class_counts("train") + data.class_counts("validation") + data.class_counts("test")
    assert counts[names.index("NIH Clinical Center, USA")].tolist() == [0, 500, 499]
    assert counts[names.index("Italy")].tolist() == [93, 6, 6]
    patients = data.dataset.patients
    assert patients is not None
    owners = [
        {name for site in data.sites for name in patients[getattr(site, part)]}
        for part in ("train", "validation", "test")
    ]
    assert sum(map(len, owners)) == len(set().union(*owners))
    assert len(data.pooled_test) / counts.sum() == pytest.approx(0.2, abs=0.01)


def test_fashion_mnist(real_data: Path) -> None:
    folder = real_data / "fashion-mnist"
    if not folder.exists():
        pytest.skip("fashion-mnist is not there")
    chosen = DataSettings(source="idx", path=folder, partition="dirichlet:0.3", limit_images=8000, min_site_images=20)
    data = load_federated(chosen, seed=0)
    assert np.bincount(data.dataset.labels).tolist() == [800] * 10
    assert data.mean == pytest.approx([0.286], abs=0.005)
    assert data.std == pytest.approx([0.353], abs=0.005)
    assert sum(len(site.train) for site in data.sites) / 8000 == pytest.approx(0.7, abs=0.01)


def test_pneumoniamnist(real_data: Path) -> None:
    path = real_data / "pneumoniamnist" / "pneumoniamnist.npz"
    if not path.exists():
        pytest.skip("pneumoniamnist is not there")
    data = load_federated(DataSettings(source="medmnist", path=path, partition="dirichlet:0.3"), seed=0)
    assert np.bincount(data.dataset.labels).tolist() == [1214 + 135 + 234, 3494 + 389 + 390]
    assert data.dataset.task == "binary"
