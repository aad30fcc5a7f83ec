"""Wrong configurations and files end with one clear line and their documented exit code, never a traceback."""

import gzip
import re
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from flop_p2p.cli import main

FLAGS = {
    "unknown flag": (["--speed", "9"], 2, "--speed.*--help"),
    "text for a number": (["--sites", "many"], 2, "--sites.*integer"),
    "resume of nothing": (["--resume", "--sites", "x"], 2, "--sites"),
    "two fractions": (["--split", "0.5,0.5"], 3, r"data\.split: .*three fractions"),
    "balanced twice": (["--head-loss", "logit-adjusted", "--class-weights", "balanced"], 3, "logit-adjusted"),
    "early stopping blind": (["--early-stopping", "2", "--evaluate-every", "0"], 3, "early_stopping"),
    "unknown method": (["--method", "fedsgd"], 3, r"method: .*'fedsgd'"),
    "unknown data source": (["--data", "imagenet"], 3, r"data\.source: .*'imagenet'"),
    "learning rate": (["--lr", "-1"], 3, r"training\.lr: .*greater than 0"),
    "split": (["--split", "0.9,0.1,0.1"], 3, r"data\.split: .*sum to 1"),
    "schedule": (["--schedule", "linear"], 3, r"training\.schedule: .*cosine"),
    "preset": (["--preset", "slow"], 3, r"slow.*quick"),
    "partition": (["--partition", "dirichlet:-1"], 3, "partition"),
    "device": (["--device", "tpu"], 3, r"tpu.*cpu or cuda"),
    "augmentation": (["--augment", "magic"], 3, r"magic.*horizontal-flip"),
    "augmented table": (["--data", "breast-cancer", "--augment", "horizontal-flip"], 3, "images"),
    "too many late sites": (["--late-sites", "7"], 3, "late-sites"),
    "no such data": (["--data", "medmnist", "--data-path", "absent.npz"], 4, r"absent\.npz"),
    "markup in a name": (["--data", "medmnist", "--data-path", "[/b].npz"], 4, r"\[/b\]\.npz"),
    "natural without sites": (["--partition", "natural"], 3, "--site-column"),
    "too many sites": (["--sites", "5000"], 4, "sites"),
    "topology": (["--topology", "moebius"], 5, r"moebius.*ring"),
    "topology size": (["--topology", "hypercube", "--sites", "6"], 5, r"hypercube.*6"),
    "samples on a schedule": (["--topology", "base:1", "--weighting", "samples"], 5, "uniform"),
    "private glob": (["--private", "classifier.*"], 6, r"classifier\.\*.*head\.weight"),
    "nothing left to share": (["--private", "*"], 6, "no body"),
    "no batch norm": (["--batch-norm", "private"], 6, "BatchNorm"),
    "model": (["--model", "resnet19"], 7, r"resnet19.*resnet18"),
    "model of one's own": (["--model", "no.such:model"], 7, r"no\.such:model"),
    "image model on a table": (["--data", "breast-cancer", "--model", "resnet18"], 7, "mlp"),
    "diverging": (["--lr", "1e30", "--model", "mlp", "--limit-images", "200"], 8, r"hospital-\d.*--lr"),
}


@pytest.fixture
def fail(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[[list[str]], tuple[int, str]]:
    """Run a command that must fail; its exit code and its one line on standard error."""

    def run(arguments: list[str]) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["flop-p2p", *arguments])
        with pytest.raises(SystemExit) as stop:
            main()
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        return int(stop.value.code or 0), lines[0]

    return run


@pytest.mark.parametrize(("flags", "code", "says"), FLAGS.values(), ids=FLAGS.keys())
def test_a_wrong_flag(
    fail: Callable[[list[str]], tuple[int, str]], tmp_path: Path, flags: list[str], code: int, says: str
) -> None:
    out = tmp_path / "out"
    exit_code, line = fail(["simulate", *flags, "--out", str(out)])
    assert re.search(says, line), line
    assert exit_code == code
    assert code == 8 or not out.exists(), "nothing may be left behind"


def truncated_npz(folder: Path) -> list[str]:
    path = folder / "x.npz"
    np.savez_compressed(path, train_images=np.zeros((50, 8, 8), np.uint8), train_labels=np.zeros((50, 1), np.uint8))
    path.write_bytes(path.read_bytes()[:200])
    return ["--data", "medmnist", "--data-path", str(path)]


def truncated_idx(folder: Path) -> list[str]:
    with gzip.open(folder / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(b"\x00\x00\x08\x03\x00\x00\x00\x05\x00\x00\x00\x08\x00\x00\x00\x08" + bytes(100))
    with gzip.open(folder / "train-labels-idx1-ubyte.gz", "wb") as file:
        file.write(b"\x00\x00\x08\x01\x00\x00\x00\x05" + bytes(5))
    return ["--data", "idx", "--data-path", str(folder)]


def table_with_nan(folder: Path) -> list[str]:
    path = folder / "x.csv"
    path.write_text("age,label\n3,0\nnan,1\n")
    return ["--data", "csv", "--data-path", str(path)]


def unknown_key(folder: Path) -> list[str]:
    path = folder / "x.toml"
    path.write_text("[training]\nbatchsize = 3\n")
    return [str(path)]


def not_toml(folder: Path) -> list[str]:
    path = folder / "x.toml"
    path.write_bytes(b"\xff\xfe[training")
    return [str(path)]


def disconnected(folder: Path) -> list[str]:
    path = folder / "x.toml"
    path.write_text('sites = ["a", "b", "c", "d"]\nedges = [["a", "b"], ["c", "d"]]\n')
    return ["--topology", str(path), "--sites", "4"]


def foreign_weights(folder: Path) -> list[str]:
    path = folder / "x.safetensors"
    save_file({"other": np.zeros(3, np.float32)}, path)
    return ["--weights", str(path)]


def occupied(folder: Path) -> list[str]:
    (folder / "out").mkdir()
    (folder / "out" / "thesis.doc").write_text("years of work")
    return []


@pytest.mark.parametrize(
    ("make", "code", "says"),
    [
        (truncated_npz, 4, r"x\.npz"),
        (truncated_idx, 4, r"train-images-idx3-ubyte\.gz"),
        (table_with_nan, 4, r"x\.csv.*3"),
        (unknown_key, 3, r"x\.toml: training\.batchsize: .*'batch_size'"),
        (not_toml, 3, r"x\.toml: not a valid TOML file"),
        (disconnected, 5, r"x\.toml.*(disconnected|reach)"),
        (foreign_weights, 7, r"x\.safetensors.*is not in the file"),
        (occupied, 9, "choose another --out"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_wrong_file(
    fail: Callable[[list[str]], tuple[int, str]],
    tmp_path: Path,
    make: Callable[[Path], list[str]],
    code: int,
    says: str,
) -> None:
    exit_code, line = fail(["simulate", *make(tmp_path), "--out", str(tmp_path / "out")])
    assert re.search(says, line), line
    assert exit_code == code


def test_every_exit_code_is_documented() -> None:
    from flop_p2p import errors

    table = (Path(__file__).parents[2] / "docs" / "errors.md").read_text()
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and kind is not errors.FlopError]
    for kind in kinds:
        assert f"| {kind.exit_code} | `{kind.__name__}`" in table
    assert len({kind.exit_code for kind in kinds}) == len(kinds)
