"""The fixture that makes federations of real daemons, see `federation.py`."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from federation import SMALL, Daemons

from flop_p2p.config import load_experiment


@pytest.fixture
def daemons(tmp_path: Path) -> Iterator[Callable[..., Daemons]]:
    """Make a federation of daemons: ``daemons({"training.rounds": 3})``."""
    made: list[Daemons] = []

    def make(overrides: dict[str, Any] | None = None) -> Daemons:
        made.append(Daemons(load_experiment(overrides={**SMALL, **(overrides or {})}), tmp_path / f"run-{len(made)}"))
        return made[-1]

    yield make
    for each in made:
        each.end()
