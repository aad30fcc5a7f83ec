"""The public face: every name is there, imported only when used, and the example of the docstring runs."""

import subprocess
import sys
from pathlib import Path

import pytest

import flop_p2p


def test_every_public_name_is_there() -> None:
    assert all(getattr(flop_p2p, name) for name in flop_p2p.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = flop_p2p.nothing


def test_import_is_quick_because_torch_waits() -> None:
    code = "import sys, flop_p2p; assert not {'torch', 'sklearn', 'pydantic'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_example_runs(tmp_path: Path) -> None:
    overrides = {"topology.name": "full", "training.rounds": 2, "data.limit_images": 200, "data.partition": "iid"}
    settings = flop_p2p.load_experiment(preset="quick", overrides=overrides)
    summary = flop_p2p.simulate(settings, tmp_path / "first")
    assert summary["rounds"] == 2
    assert (tmp_path / "first" / "summary.json").exists()
