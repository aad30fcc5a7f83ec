"""Epsilon, as opacus accounts it, and budgets."""

import sys
import warnings
from typing import Any

import pytest
from opacus.accountants import PRVAccountant, RDPAccountant

from flop_p2p.config import PrivacySettings
from flop_p2p.errors import ConfigError
from flop_p2p.learning import Ledger


def ledger(rate: float = 0.1, budget: float | None = None, **values: Any) -> Ledger:
    history = values.pop("history", ())
    return Ledger(PrivacySettings(**{"noise_multiplier": 1.1, **values}), rate, budget, history)


@pytest.mark.parametrize(("kind", "accountant"), [("rdp", RDPAccountant), ("prv", PRVAccountant)])
def test_epsilon_is_that_of_opacus_for_the_same_steps(kind: str, accountant: Any) -> None:
    theirs, own = accountant(), ledger(accountant=kind, delta=1e-6)
    assert own.epsilon == 0
    for steps in (1, 24):
        for _ in range(steps):
            theirs.step(noise_multiplier=1.1, sample_rate=0.1)
        own.spend(steps)
        assert own.epsilon == theirs.get_epsilon(delta=1e-6)
    assert own.history == theirs.history == [(1.1, 0.1, 25)]


def test_steps_of_other_rates_and_noise_add_up() -> None:
    theirs, own = RDPAccountant(), ledger(rate=0.2, history=[[1.1, 0.1, 7], [0.9, 0.1, 2]])
    for noise, rate, steps in ((1.1, 0.1, 7), (0.9, 0.1, 2), (1.1, 0.2, 3)):
        for _ in range(steps):
            theirs.step(noise_multiplier=noise, sample_rate=rate)
    own.spend(3)
    assert own.steps == 12
    assert own.epsilon == theirs.get_epsilon(delta=1e-5)


def test_a_budget_is_never_exceeded_and_used_to_the_last_step() -> None:
    own = ledger(budget=3.0)
    while own.allows(3):
        own.spend(3)
    assert own.steps > 0
    assert own.epsilon <= 3.0
    assert ledger(history=[(1.1, 0.1, own.steps + 3)]).epsilon > 3.0


def test_rounds_within_a_budget() -> None:
    for budget in (0.1, 2.5, 3.0, 50.0):
        own, rounds = ledger(budget=budget), 0
        while rounds < 9 and own.allows(3):
            own.spend(3)
            rounds += 1
        assert ledger(budget=budget).rounds(3, 9) == rounds
    assert ledger().rounds(3, 9) == 9


def test_asking_spends_nothing_and_what_is_not_taken_is_given_back() -> None:
    own = ledger(budget=100.0)
    assert own.allows(10)
    assert own.history == []
    own.spend(10)
    own.spend(-4)
    assert own.history == [(1.1, 0.1, 6)]
    own.spend(-6)
    assert own.history == []
    assert own.epsilon == 0


def test_orders_at_the_edge_are_no_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert ledger(rate=1.0, noise_multiplier=0.05, history=[(0.05, 1.0, 1)]).epsilon > 100


def test_prv_says_nothing_where_all_take_part_in_each_step(recwarn: pytest.WarningsRecorder) -> None:
    assert 0 < ledger(rate=1.0, accountant="prv", history=[(1.1, 1.0, 3)]).epsilon < 50
    assert not recwarn.list


def test_prv_gives_way_to_rdp_where_it_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PRVAccountant, "get_epsilon", lambda self, delta: pytest.fail("asked"))
    history = [(0.5, 0.25, 2000)]
    epsilon = ledger(accountant="prv", history=history).epsilon
    assert epsilon == ledger(history=history).epsilon > 50
    assert not ledger(accountant="prv", budget=50.0, history=history).allows(1)


def test_opacus_that_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opacus.accountants", None)
    monkeypatch.delitem(sys.modules, "opacus")
    monkeypatch.setitem(sys.modules, "opacus", None)
    with pytest.raises(ConfigError, match=r"needs opacus: pip install 'flop-p2p\[dp\]'"):
        ledger()
