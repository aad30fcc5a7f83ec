"""The learning rate of each method, chosen from one grid on validation data."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flop_p2p.comparison.plan import Arm, Plan, Run
from flop_p2p.errors import ConfigError, TrainingError
from flop_p2p.simulation import METHODS


@dataclass(frozen=True)
class GridOutcome:
    """What the grid gave for one method and topology.

    validation_accuracy: mean over sites after the last round, a learning rate; None where training diverged.
    chosen: the learning rate with the best one, the lower of equals.
    """

    validation_accuracy: dict[float, float | None]
    chosen: float


def grid_runs(plan: Plan) -> dict[Arm, dict[float, Run]]:
    """The runs of the grid; methods that do not train have none."""
    rates = sorted(plan.settings.comparison.lr_grid)
    if not rates:
        return {}
    trained = [arm for arm in plan.arms if METHODS[arm.method].trains]
    return {arm: {lr: plan.grid_run(arm, lr) for lr in rates} for arm in trained}


def search(arm: Arm, runs: dict[float, Run], execute: Callable[[Run], dict[str, Any]]) -> GridOutcome:
    """Run every learning rate with the first seed and choose; a rate at which training diverges is out.

    Raises:
        ConfigError: no site has validation data.
        TrainingError: training diverged at every rate.
    """
    accuracies: dict[float, float | None] = {}
    for lr, run in runs.items():
        try:
            summary = execute(run)
        except TrainingError:
            accuracies[lr] = None
            continue
        if summary["validation"] is None:
            raise ConfigError("--lr-grid chooses on validation data, and no site is large enough to have any")
        accuracies[lr] = summary["validation"]["accuracy"]["mean"]
    converged = {lr: accuracy for lr, accuracy in accuracies.items() if accuracy is not None}
    if not converged:
        raise TrainingError(f"{arm.label}: training diverged at every rate of --lr-grid; add lower ones")
    return GridOutcome(accuracies, max(converged, key=lambda lr: (converged[lr], -lr)))
