"""Image folders and lists of images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flop_p2p.config import DataSettings
from flop_p2p.data.dataset import Dataset
from flop_p2p.data.sources import read_source
from flop_p2p.errors import ConfigError, DataError


def read(source: str, path: Path, **more: object) -> Dataset:
    chosen = DataSettings(source=source, path=path, **more)  # type: ignore[arg-type]
    return read_source(chosen, np.random.default_rng(0))


def test_folder(image_folder: Path) -> None:
    (image_folder / "normal" / "notes.txt").write_text("not an image")
    dataset = read("folder", image_folder)
    assert (dataset.class_names, dataset.task) == (("normal", "pneumonia"), "binary")
    assert dataset.inputs.shape == (16, 1, 6, 6)
    assert np.array_equal(dataset.inputs[:, 0, 0, 0], [10] * 8 + [200] * 8)
    assert dataset.labels.tolist() == [0] * 8 + [1] * 8


def test_one_coloured_image_makes_all_coloured_unless_asked(image_folder: Path) -> None:
    Image.new("RGB", (6, 6), (255, 0, 0)).save(image_folder / "normal" / "0.png")
    dataset = read("folder", image_folder)
    assert dataset.inputs.shape == (16, 3, 6, 6)
    assert dataset.inputs[0, :, 0, 0].tolist() == [255, 0, 0]
    assert read("folder", image_folder, channels=1).inputs[0, 0, 0, 0] == 76  # 0.299 * 255


def test_sixteen_bit_images_keep_their_high_byte(image_folder: Path) -> None:
    Image.fromarray(np.full((6, 6), 0x8123, np.uint16)).save(image_folder / "normal" / "0.png")
    dataset = read("folder", image_folder)
    assert dataset.inputs.shape == (16, 1, 6, 6)
    assert (dataset.inputs[0] == 0x81).all()


def test_twelve_bits_in_a_deep_file_keep_their_range(image_folder: Path) -> None:
    ramp = np.linspace(0, 4095, 36).astype(np.uint16).reshape(6, 6)
    for path in image_folder.glob("*/*"):
        Image.fromarray(ramp).save(path)
    Image.fromarray(ramp // 2).save(image_folder / "normal" / "0.png")
    pixels = read("folder", image_folder).inputs
    assert sorted({int(image.max()) for image in pixels}) == [127, 255]


def test_sizes_must_agree_or_be_given(image_folder: Path) -> None:
    Image.new("L", (9, 7)).save(image_folder / "pneumonia" / "3.png")
    with pytest.raises(DataError, match=r"3\.png: is 9 x 7 pixels and 0\.png 6 x 6; .*--image-size"):
        read("folder", image_folder)
    assert read("folder", image_folder, image_size=5).inputs.shape == (16, 1, 5, 5)


def test_limit_draws_before_decoding(image_folder: Path) -> None:
    dataset = read("folder", image_folder, limit_images=6)
    assert np.bincount(dataset.labels).tolist() == [3, 3]


@pytest.mark.parametrize("content", [b"", b"no image", "half"])
def test_damaged_image_is_named(image_folder: Path, content: bytes | str) -> None:
    file = image_folder / "pneumonia" / "5.png"
    noise = np.random.default_rng(0).integers(0, 256, (6, 6), dtype=np.uint8)
    Image.fromarray(noise).save(file)
    file.write_bytes(content if isinstance(content, bytes) else file.read_bytes()[:60])
    with pytest.raises(DataError, match=r"5\.png: truncated, corrupt or no image file"):
        read("folder", image_folder)


def test_folders_that_are_no_classes(tmp_path: Path, image_folder: Path) -> None:
    (image_folder / "covid").mkdir()
    with pytest.raises(DataError, match="covid: there is no image in this class folder"):
        read("folder", image_folder)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="one folder of images a class"):
        read("folder", tmp_path / "empty")
    for part in ("train", "test"):
        (tmp_path / "parts" / part / "normal").mkdir(parents=True)
    with pytest.raises(DataError, match="test, train look like splits"):
        read("folder", tmp_path / "parts")


@pytest.fixture
def image_list(image_folder: Path) -> Path:
    rows = ["file,finding,who,hospital"]
    rows += [f"normal/{number}.png,no finding,p{number},Bonn" for number in range(8)]
    rows += [f"pneumonia/{number}.png, pneumonia ,q{number // 2},Rome" for number in range(8)]
    (image_folder / "list.csv").write_text("\n".join(rows) + "\n")
    return image_folder / "list.csv"


COLUMNS = {"path_column": "file", "label_column": "finding", "patient_column": "who", "site_column": "hospital"}


def test_image_csv(image_list: Path) -> None:
    dataset = read("image-csv", image_list, **COLUMNS)
    assert dataset.class_names == ("no finding", "pneumonia")
    assert np.array_equal(dataset.inputs[:, 0, 0, 0], [10] * 8 + [200] * 8)
    assert dataset.sites is not None
    assert dataset.sites.tolist() == ["Bonn"] * 8 + ["Rome"] * 8
    assert dataset.patients is not None
    assert dataset.patients[-1] == "q3"


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("normal/3.png", "normal/33.png", r"list\.csv: line 5: there is no image file .*normal/33\.png"),
        ("normal/3.png,no finding", "normal/3.png,", r"list\.csv: line 5: column finding is empty"),
        ("normal/3.png,no finding,p3", "normal/3.png,no finding,", r"line 5: column who is empty"),
        ("normal/3.png,no finding", "normal/3.png", r"line 5: has 3 cells, the header has 4"),
        ("file,finding", "path,finding", r"no column file \(--path-column\); there are path, finding, who, hospital"),
        ("who,hospital", "who,who", "line 1: the column who is there twice"),
        ("who,hospital", "who,", "line 1: column 4 has no name"),
    ],
)
def test_wrong_lists(image_list: Path, old: str, new: str, message: str) -> None:
    image_list.write_text(image_list.read_text().replace(old, new, 1))
    with pytest.raises(DataError, match=message):
        read("image-csv", image_list, **COLUMNS)


def test_a_damaged_image_of_a_list_is_named_with_its_line(image_list: Path) -> None:
    (image_list.parent / "normal" / "0.png").write_bytes(b"junk")
    with pytest.raises(DataError, match=r"list\.csv: line 2: .*0\.png: truncated, corrupt"):
        read("image-csv", image_list, **COLUMNS)


def test_images_of_every_source_can_be_resized() -> None:
    small = read_source(DataSettings(), np.random.default_rng(0)).inputs
    large = read_source(DataSettings(image_size=32, channels=3), np.random.default_rng(0)).inputs
    assert large.shape == (len(small), 3, 32, 32)
    assert large.dtype == np.uint8
    assert np.corrcoef(large.mean(axis=(1, 2, 3)), small.mean(axis=(1, 2, 3)))[0, 1] > 0.99


def test_size_is_only_for_images() -> None:
    with pytest.raises(ConfigError, match="--image-size 5: breast-cancer is a table"):
        read_source(DataSettings(source="breast-cancer", image_size=5), np.random.default_rng(0))
