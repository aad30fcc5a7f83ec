"""A simulation that costs nothing: it writes a run directory from a formula and remembers that it was asked."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from flop_p2p.config import ExperimentSettings, load_experiment
from flop_p2p.simulation import RoundReport

ACCURACY = {"local": 0.80, "flop": 0.90, "p2p-flop": 0.895, "fedavg": 0.85, "majority": 0.5}


class FakeSimulation:
    """Accuracy depends on method and seed only, and rises by 0.1 a round up to its final value."""

    def __init__(self) -> None:
        self.calls: list[Path] = []
        self.datas: list[Any] = []
        self.resumed: list[bool] = []
        self.fail: Callable[[ExperimentSettings], None] = lambda settings: None

    def __call__(
        self,
        settings: ExperimentSettings,
        directory: Path,
        *,
        data: Any = None,
        resume: bool = False,
        save_models: bool = True,
        on_round: Callable[[RoundReport], None] | None = None,
    ) -> dict[str, Any]:
        self.calls.append(directory)
        self.datas.append(data)
        self.resumed.append(resume)
        directory.mkdir(parents=True, exist_ok=resume)
        config = settings.model_dump(mode="json", exclude_none=True)
        (directory / "config.toml").write_text(tomli_w.dumps(config))
        self.fail(settings)
        rounds = settings.training.rounds
        final = ACCURACY[settings.method] + 0.001 * settings.seed
        lines = []
        for number in range(1, rounds + 1):
            accuracy = final - 0.1 * (rounds - number)
            lines += [line(number, "a", accuracy - 0.02), line(number, "b", accuracy + 0.02)]
            if on_round is not None:
                on_round(RoundReport(number, rounds, accuracy, 0.0))
        (directory / "metrics.jsonl").write_text("".join(json.dumps(own) + "\n" for own in lines))
        summary = summarize(settings, final)
        (directory / "summary.json").write_text(json.dumps(summary))
        return summary


def line(number: int, site: str, accuracy: float) -> dict[str, Any]:
    return {"round": number, "site": site, "test": {"accuracy": accuracy}, "bytes_total": 1000 * number}


def over_sites(accuracy: float) -> dict[str, Any]:
    per_site = {"a": accuracy - 0.02, "b": accuracy + 0.02}
    return {"mean": accuracy, "min": accuracy - 0.02, "per_site": per_site, "sites_counted": 2}


def summarize(settings: ExperimentSettings, accuracy: float) -> dict[str, Any]:
    """The best learning rate is 0.05: validation accuracy falls with the distance from it."""
    metrics = {name: over_sites(accuracy) for name in ("accuracy", "balanced_accuracy", "auroc")}
    validation = accuracy - abs(settings.training.lr - 0.05)
    return {
        "method": settings.method,
        "weighting": settings.topology.weighting,
        "lr": settings.training.lr,
        "sites": 2,
        "rounds": settings.training.rounds,
        "model": "mlp",
        "task": "binary",
        "metrics": metrics,
        "pooled_test": metrics,
        "chosen_round": {"metrics": metrics},
        "validation": {"accuracy": over_sites(validation)},
        "late_sites": None,
        "bytes": {"total": 3000, "busiest_site": 2000},
        "seconds": {"total": 1.5},
    }


@pytest.fixture
def fake() -> FakeSimulation:
    return FakeSimulation()


@pytest.fixture
def experiment() -> Callable[..., ExperimentSettings]:
    """Settings on breast-cancer, 3 rounds; keywords are keys of the comparison, ``overrides`` dotted ones."""

    def make(overrides: dict[str, Any] | None = None, **comparison: Any) -> ExperimentSettings:
        values = {"data.source": "breast-cancer", "data.sites": 4, "training.rounds": 3, "comparison.seeds": 2}
        values |= {f"comparison.{key}": value for key, value in comparison.items()}
        return load_experiment(overrides=values | (overrides or {}))

    return make
