"""`flop-p2p topology show` and `compare`, as users meet them."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from flop_p2p import cli
from flop_p2p.cli.topology import SPEC_HELP
from flop_p2p.errors import ConfigError, TopologyError
from flop_p2p.topology import FAMILIES
from flop_p2p.topology.families import usage

TOPOLOGIES = Path(__file__).parents[2] / "topologies"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    """Run `flop-p2p topology ...` in an empty folder; returns exit code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")

    def run_command(*arguments: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["flop-p2p", "topology", *arguments])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return run_command


def test_show_prints_figures_and_draws(run) -> None:
    code, out, _ = run("show", "ring", "--sites", "16", "--parameters", "250000")
    figures = dict(cells for line in out.splitlines() if len(cells := re.split(r"\s{2,}", line.strip())) == 2)
    assert code == 0
    assert figures["degree in a round"] == "2"
    assert figures["diameter"] == "8"
    assert figures["spectral gap"] == "0.0507"
    assert figures["messages a round"] == "32"
    assert figures["bytes a round"] == "32 MB, with bodies of 1 MB"
    assert figures["rounds to shrink differences a thousandfold"] == "110"
    assert figures["bytes to shrink differences a thousandfold"] == "3.52 GB"
    assert "Doubly stochastic: the sites converge to the plain mean" in out
    assert "picture: topology-ring.png" in out
    assert Path("topology-ring.png").read_bytes().startswith(b"\x89PNG")


def test_show_says_what_a_matrix_that_is_not_doubly_stochastic_means(run) -> None:
    code, out, _ = run("show", "star", "--sites", "5", "--weights", "uniform", "--out", "star.png")
    assert code == 0
    assert "Not doubly stochastic: the sites converge to a weighted mean, not to the plain one." in out
    assert "1 38.46%" in out
    assert Path("star.png").exists()


def test_show_takes_samples(run) -> None:
    options = ("--sites", "3", "--weighting", "samples", "--samples", "100,200,700")
    code, out, _ = run("show", "path", *options)
    assert code == 0
    assert "least 10.00% (1), most 70.00% (3)" in out


def test_show_takes_a_file_with_its_own_sites(run) -> None:
    code, out, _ = run("show", str(TOPOLOGIES / "one-way-links.toml"), "--body-bytes", "1000")
    assert code == 0
    assert "one-way-links, 5 sites" in out
    assert "7 kB, with bodies of 1 kB" in out
    assert "data-centre 22.73%" in out


def test_compare_has_a_row_for_every_family_and_a_picture(run) -> None:
    code, out, _ = run("compare", "--sites", "9", "--out", "all.png")
    rows = {line.split()[0].split(":")[0]: line for line in out.splitlines() if line.strip()}
    assert code == 0
    assert set(FAMILIES) <= set(rows)
    assert "does not exist for 9 sites: needs a power of two" in rows["hypercube"]
    assert "a mean weighted by chance" in rows["epidemic"]
    assert rows["full"].split()[1:6] == ["1", "8", "1", "1", "72"]
    assert Path("all.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (("show", "rign"), "no such family; did you mean 'ring'?", TopologyError.exit_code),
        (("show", "hypercube", "--sites", "12"), "nearest sizes: 8 and 16", TopologyError.exit_code),
        (("show", "ring", "--sites", "1"), "two or more sites, got 1", TopologyError.exit_code),
        (("compare", "--sites", "0"), "'--sites'", 2),
        (("show", "ring", "--samples", "1,2"), "--weighting samples", ConfigError.exit_code),
        (("show", "base", "--weighting", "samples", "--samples", "1,2"), "number of samples", TopologyError.exit_code),
        (
            ("show", "ring", "--weighting", "samples", "--samples", "1,x"),
            "--samples '1,x': not whole numbers",
            ConfigError.exit_code,
        ),
        (("show", "ring", "--weights", "heavy"), "command line: weights", ConfigError.exit_code),
        (("show", "ring", "--weighting", "size"), "command line: weighting", ConfigError.exit_code),
        (("show", "absent.toml"), "absent.toml: cannot read this file", ConfigError.exit_code),
        (("show", "ring", "--parameters", "9", "--body-bytes", "9"), "not both", ConfigError.exit_code),
        (
            ("show", str(TOPOLOGIES / "three-countries.toml"), "--sites", "4"),
            "names 9 sites; leave --sites out",
            ConfigError.exit_code,
        ),
    ],
)
def test_wrong_input_is_one_line_and_an_exit_code(run, arguments, message, code) -> None:
    exit_code, out, errors = run(*arguments)
    assert exit_code == code
    assert out == ""
    assert message in errors
    assert len(errors.splitlines()) == 1


def test_help_names_every_family() -> None:
    listed = SPEC_HELP.split(", or ")[0].split(", ")
    assert listed == [usage(name) for name in FAMILIES]


def test_show_imports_neither_torch_nor_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys; from flop_p2p.cli import main\n"
        "sys.argv = ['flop-p2p', 'topology', 'show', 'ring', '--sites', '16']\n"
        "try: main()\nexcept SystemExit: pass\n"
        "assert 'torch' not in sys.modules and 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, capture_output=True)
