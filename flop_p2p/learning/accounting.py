"""What differentially private training has spent: epsilon at delta, by the accountants of opacus."""

import bisect
import functools
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from flop_p2p.config import PrivacySettings
from flop_p2p.errors import ConfigError

Entry = tuple[float, float, int]  # noise multiplier, sampling rate, steps: as in an accountant of opacus
PRV_UP_TO = 50.0  # epsilon of the Renyi accountant: beyond, the PRV accountant takes up to minutes
EXTREME_ORDER = "Optimal order is the"  # epsilon is then a bound that could be tighter, and holds


class Ledger:
    """The gradient steps that a site has taken on its patients' data, and what it may still take.

    Epsilon is that of the accountant of the settings; beyond `PRV_UP_TO` always that of the Renyi accountant.

    Every step counts, of body and head together and in every phase: the gradients of the body depend on the head.

    Args:
        rate: probability with which a record or patient takes part in a step.
        budget: epsilon that is not to be exceeded; None for none.
        history: what was spent before.

    Raises:
        ConfigError: opacus is not installed.
    """

    def __init__(
        self, privacy: PrivacySettings, rate: float, budget: float | None, history: Sequence[Entry] = ()
    ) -> None:
        _accountants()
        self._privacy, self._rate, self.budget = privacy, rate, budget
        self.history: list[Entry] = [(float(noise), float(rate), int(steps)) for noise, rate, steps in history]

    @property
    def epsilon(self) -> float:
        """Spent so far, at the delta of the settings."""
        return self._epsilon(self.history)

    @property
    def steps(self) -> int:
        """Taken so far."""
        return sum(steps for _, _, steps in self.history)

    def allows(self, steps: int) -> bool:
        """Whether so many further steps stay within the budget."""
        return self.budget is None or self._epsilon(self._after(steps)) <= self.budget

    def rounds(self, steps: int, most: int) -> int:
        """How many rounds of so many steps stay within the budget, up to ``most``."""
        return bisect.bisect_left(range(1, most + 1), True, key=lambda rounds: not self.allows(rounds * steps))

    def spend(self, steps: int) -> None:
        """Account for so many steps; a negative number gives back what was not taken."""
        self.history = self._after(steps)

    def _after(self, steps: int) -> list[Entry]:
        kind = (self._privacy.noise_multiplier, self._rate)
        before = self.history[-1][2] if self.history and self.history[-1][:2] == kind else 0
        kept = self.history[:-1] if before else self.history
        return [*kept, (*kind, before + steps)] if before + steps else list(kept)

    def _epsilon(self, history: Sequence[Entry]) -> float:
        return _epsilon(tuple(history), self._privacy.delta, self._privacy.accountant)


def _accountants() -> Any:
    """The package `opacus.accountants`, imported when it is needed: that takes seconds."""
    try:
        import opacus.accountants
    except ImportError as error:
        raise ConfigError("privacy.noise_multiplier needs opacus: pip install 'flop-p2p[dp]'") from error
    return opacus.accountants


@functools.lru_cache(maxsize=4096)
def _epsilon(history: tuple[Entry, ...], delta: float, kind: str) -> float:
    if not history:
        return 0.0
    epsilon = _renyi_epsilon(history, delta)
    if kind == "rdp" or epsilon > PRV_UP_TO:
        return epsilon
    accountant = _accountants().PRVAccountant()
    accountant.history = list(history)
    with np.errstate(all="ignore"):  # where all take part in each step, it takes the logarithm of 0 and uses it not
        return float(accountant.get_epsilon(delta=delta))


def _renyi_epsilon(history: tuple[Entry, ...], delta: float) -> float:
    analysis = _accountants().analysis.rdp
    spent = sum(_divergences(noise, rate) * steps for noise, rate, steps in history)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", EXTREME_ORDER, UserWarning)
        epsilon, _ = analysis.get_privacy_spent(orders=_orders(), rdp=spent, delta=delta)
    return float(epsilon)


@functools.lru_cache(maxsize=4096)
def _divergences(noise: float, rate: float) -> Any:
    """Renyi divergences of one step at opacus' orders: they add up over steps, and take long to compute."""
    analysis = _accountants().analysis.rdp
    return analysis.compute_rdp(q=rate, noise_multiplier=noise, steps=1, orders=_orders())


def _orders() -> Sequence[float]:
    orders: Sequence[float] = _accountants().RDPAccountant.DEFAULT_ALPHAS
    return orders
