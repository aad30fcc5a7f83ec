"""`flop-p2p data export`, as a user runs it: what the nodes read is what a simulation has."""

import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from flop_p2p.cli.data import app
from flop_p2p.config import load_experiment
from flop_p2p.config.federation import SampleSettings
from flop_p2p.config.site import SiteDataSettings
from flop_p2p.data import load_site_data
from flop_p2p.errors import ConfigError, RunError
from flop_p2p.simulation import load_data

DIRICHLET = ["--data", "digits", "--partition", "dirichlet:0.5", "--sites", "3", "--seed", "4", "--limit-images", "300"]


def run(*arguments: str | Path) -> Any:
    return CliRunner().invoke(app, ["export", *map(str, arguments)])


def test_every_hospital_gets_the_data_that_it_has_in_a_simulation(tmp_path: Path) -> None:
    result = run(*DIRICHLET, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    simulated = load_data(
        load_experiment(
            overrides={"data.partition": "dirichlet:0.5", "data.sites": 3, "data.limit_images": 300, "seed": 4}
        )
    )
    samples = SampleSettings(**tomllib.loads((tmp_path / "out" / "samples.toml").read_text())["samples"])
    for site in simulated.sites:
        path = tmp_path / "out" / f"{site.name}.safetensors"
        assert f"{path}: {site.name}, {len(site.train)} training, " in result.stdout
        own = load_site_data(SiteDataSettings(source="safetensors", path=path), samples, site.name, 4)
        assert np.array_equal(own.dataset.inputs[own.sites[0].train], simulated.dataset.inputs[site.train])
        assert np.array_equal(own.dataset.labels[own.sites[0].test], simulated.dataset.labels[site.test])
        assert np.array_equal(own.mean, simulated.mean)
        assert np.array_equal(own.std, simulated.std)
    assert len(list((tmp_path / "out").iterdir())) == 4


def test_a_topology_file_names_the_hospitals(tmp_path: Path) -> None:
    topology = tmp_path / "three.toml"
    topology.write_text('sites = ["St. Anna", "Rome", "Oslo"]\nedges = [["St. Anna", "Rome"], ["Rome", "Oslo"]]\n')
    result = run("--data", "breast-cancer", "--topology", topology, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["Oslo.safetensors", "Rome.safetensors", "St.-Anna.safetensors", "samples.toml"]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "kept.txt").write_text("kept")
    result = run(*DIRICHLET, "--out", tmp_path)
    assert isinstance(result.exception, RunError)
    assert str(result.exception) == f"{tmp_path}: not empty; choose another --out"
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize(("flag", "value"), [("--partition", "natural"), ("--sites", "0")])
def test_a_mistake_leaves_no_folder(tmp_path: Path, flag: str, value: str) -> None:
    result = run(flag, value, "--out", tmp_path / "out")
    assert isinstance(result.exception, ConfigError)
    assert not (tmp_path / "out").exists()


def test_a_folder_is_needed() -> None:
    assert run("--sites", "3").exit_code == 2
