"""CSV tables."""

from pathlib import Path

import numpy as np
import pytest

from flop_p2p.config import DataSettings
from flop_p2p.data import load_federated
from flop_p2p.data.dataset import Dataset
from flop_p2p.data.sources import read_source
from flop_p2p.errors import ConfigError, DataError

TABLE = "age,label,ward,crp\n61,ill,A,1.5\n40,well,B,0.2\n55,ill,A,1e1\n"


def read(path: Path, **more: object) -> Dataset:
    chosen = DataSettings(source="csv", path=path, **more)  # type: ignore[arg-type]
    return read_source(chosen, np.random.default_rng(0))


def test_table(tmp_path: Path) -> None:
    path = tmp_path / "blood.csv"
    path.write_text("\ufeff" + TABLE + "\n", encoding="utf-8")
    dataset = read(path, site_column="ward")
    assert np.array_equal(dataset.inputs, np.array([[61, 1.5], [40, 0.2], [55, 10]], np.float32))
    assert (dataset.task, dataset.class_names, dataset.labels.tolist()) == ("binary", ("ill", "well"), [0, 1, 0])
    assert dataset.sites is not None
    assert dataset.sites.tolist() == ["A", "B", "A"]


def test_whole_numbers_as_labels_are_in_numeric_order(tmp_path: Path) -> None:
    path = tmp_path / "grades.csv"
    path.write_text("label,x\n10,1\n9,2\n2,3\n")
    assert read(path).class_names == ("2", "9", "10")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("0.2", "nan", "line 3: column crp is nan, and a feature must be a finite number"),
        ("0.2", "inf", "line 3: column crp is inf"),
        ("0.2", "1e39", "line 3: column crp is 1e39"),
        ("0.2", "", "line 3: column crp is empty"),
        ("0.2", "low", "line 3: column crp is low"),
        ("0.2", '"low', "not a readable UTF-8 CSV file"),
        ("label", "outcome", r"no column label \(--label-column\); there are age, outcome, ward, crp"),
        ("crp", "age", "line 1: the column age is there twice"),
    ],
)
def test_wrong_tables(tmp_path: Path, old: str, new: str, message: str) -> None:
    path = tmp_path / "blood.csv"
    path.write_text(TABLE.replace(old, new, 1))
    with pytest.raises(DataError, match=message) as caught:
        read(path, site_column="ward")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_class_alone_is_nothing_to_learn(tmp_path: Path) -> None:
    path = tmp_path / "blood.csv"
    path.write_text(TABLE.replace("well", "ill"))
    with pytest.raises(DataError, match=r"blood\.csv: has only the class ill; at least two"):
        load_federated(DataSettings(source="csv", path=path, site_column="ward"), 0)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"label,x\n", "no row below the header"),
        (b"label\na\nb\n", "no column left for features"),
        (b"label,x\n\xff\xfe,1\n", "not a readable UTF-8"),
    ],
)
def test_files_that_are_no_table(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "blood.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read(path)


def test_a_table_has_no_channels(tmp_path: Path) -> None:
    path = tmp_path / "blood.csv"
    path.write_text(TABLE.replace("ward", "w").replace(",A,", ",1,").replace(",B,", ",2,"))
    with pytest.raises(ConfigError, match="blood is a table"):
        read(path, channels=3)
