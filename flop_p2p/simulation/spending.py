"""What the sites of a simulation have spent of their privacy budgets, and which of them therefore train no more."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flop_p2p.config import PrivacySettings
from flop_p2p.errors import ConfigError
from flop_p2p.learning import Ledger, PrivateLearner
from flop_p2p.simulation.checkpoint import Progress


class Spending:
    """The ledgers of all that train, at every rank the same.

    Args:
        training: by name the probability with which a record or patient takes part in a step, and the steps of a round.

    Raises:
        ConfigError: opacus is not installed, or the budget allows nobody a single round.
    """

    def __init__(self, privacy: PrivacySettings, training: Mapping[str, tuple[float, int]]) -> None:
        self._privacy = privacy
        self._steps = {name: steps for name, (_, steps) in training.items()}
        self._rates = {name: rate for name, (rate, _) in training.items()}
        self.restore(Progress([], 0))
        if self._ledgers and len(self.silent()) == len(self._ledgers):
            raise ConfigError(
                f"privacy.epsilon = {privacy.epsilon:g} is spent before the first round is over; raise --epsilon or "
                "--noise-multiplier, or take fewer local steps or smaller batches"
            )

    def restore(self, progress: Progress) -> None:
        """Go on from what `progress` says was spent."""
        self._ledgers = {
            name: Ledger(self._privacy, rate, self._privacy.epsilon, progress.spent.get(name, ()))
            for name, rate in self._rates.items()
        }

    def silent(self) -> list[str]:
        """Those whose budget the next round would exceed: they train and send no more."""
        return [name for name, ledger in self._ledgers.items() if not ledger.allows(self._steps[name])]

    def end_round(self, trained: Iterable[str], progress: Progress) -> None:
        """Account for the steps of all that trained, also in ``progress``."""
        for name in trained:
            if name in self._ledgers:
                self._ledgers[name].spend(self._steps[name])
                progress.spent[name] = self._ledgers[name].history

    def epsilon(self, name: str) -> float | None:
        """Spent so far by one; None without differential privacy."""
        return self._ledgers[name].epsilon if name in self._ledgers else None

    def summary(self, progress: Progress) -> dict[str, Any] | None:
        """What is told of all in `summary.json`; None without differential privacy."""
        if not self._ledgers:
            return None
        settings = self._privacy.model_dump(exclude={"masking", "masking_range", "epsilon"})
        sites = {
            name: {
                "epsilon": ledger.epsilon,
                "steps": ledger.steps,
                "sampling_rate": self._rates[name],
                "stopped": progress.stopped.get(name),
            }
            for name, ledger in self._ledgers.items()
        }
        return {**settings, "budget": self._privacy.epsilon, "sites": sites}


def rounds_within_budget(learner: PrivateLearner, privacy: PrivacySettings, rounds: int) -> int:
    """How many of so many rounds the budget of a site that joins late allows."""
    return Ledger(privacy, learner.rate, privacy.epsilon).rounds(learner.steps, rounds)


def of_learners(learners: Sequence[object]) -> dict[str, tuple[float, int]]:
    """Sampling rate and steps of those that train with differential privacy, by name."""
    return {each.name: (each.rate, each.steps) for each in learners if isinstance(each, PrivateLearner)}
