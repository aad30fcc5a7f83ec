"""flop-p2p: peer-to-peer federated learning for hospitals; the body is shared, the head stays at home.

    from pathlib import Path
    from flop_p2p import load_experiment, simulate

    settings = load_experiment(preset="quick", overrides={"topology.name": "full"})
    summary = simulate(settings, Path("runs/first"))

The names below are the public face; they are imported when first used, so that `import flop_p2p` is quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flop_p2p.comparison import compare
    from flop_p2p.config import ExperimentSettings, load_experiment
    from flop_p2p.errors import FlopError
    from flop_p2p.partial import Split, split_model
    from flop_p2p.simulation import run_simulation as simulate

__version__ = "0.1.0"

__all__ = ["ExperimentSettings", "FlopError", "Split", "compare", "load_experiment", "simulate", "split_model"]

_HOMES = {
    "ExperimentSettings": "config",
    "FlopError": "errors",
    "Split": "partial",
    "compare": "comparison",
    "load_experiment": "config",
    "simulate": "simulation.run",
    "split_model": "partial",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = importlib.import_module(f"{__name__}.{_HOMES[name]}")
    return getattr(module, "run_simulation" if name == "simulate" else name)
