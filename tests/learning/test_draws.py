"""Where the random numbers of differentially private training come from."""

import multiprocessing

import numpy as np
import pytest
import torch
from scipy import stats

from flop_p2p.learning import Draws, SecretDraws, SeededDraws
from flop_p2p.learning import draws as module

BOTH = pytest.mark.parametrize("draws", [SeededDraws(3, "north"), SecretDraws()], ids=["seeded", "secret"])


@BOTH
def test_normal_numbers_are_normal(draws: Draws) -> None:
    numbers = draws.normal(0, 0, 50_001)
    assert numbers.dtype == torch.float32
    assert numbers.shape == (50_001,)
    assert stats.kstest(numbers.double().numpy(), "norm").pvalue > 1e-6
    pairs = numbers[:50_000].view(2, -1).double()
    assert abs(float(torch.corrcoef(pairs)[0, 1])) < 0.04


@BOTH
def test_uniform_numbers_are_uniform(draws: Draws) -> None:
    numbers = draws.uniform("sampling", 0, 0, 50_000)
    assert ((numbers >= 0) & (numbers < 1)).all()
    assert stats.kstest(numbers, "uniform").pvalue > 1e-6


def test_normal_numbers_come_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    numbers = SecretDraws().normal(0, 0, 20)
    assert len(set(numbers.tolist())) == 20


def test_seeded_numbers_depend_on_seed_site_round_step_and_purpose() -> None:
    draws = SeededDraws(3, "north")
    assert torch.equal(draws.normal(1, 2, 5), SeededDraws(3, "north").normal(1, 2, 5))
    others = [SeededDraws(4, "north").normal(1, 2, 5), SeededDraws(3, "south").normal(1, 2, 5)]
    others += [draws.normal(2, 2, 5), draws.normal(1, 3, 5)]
    assert not any(torch.equal(draws.normal(1, 2, 5), other) for other in others)
    assert not np.array_equal(draws.uniform("a", 1, 2, 5), draws.uniform("b", 1, 2, 5))
    assert draws.generator_seed(1, 2) != draws.generator_seed(1, 3)


def test_secret_numbers_come_from_the_operating_system(monkeypatch: pytest.MonkeyPatch) -> None:
    draws = SecretDraws()
    torch.manual_seed(0)
    first = (draws.normal(0, 0, 4).tolist(), draws.uniform("a", 0, 0, 4).tolist(), draws.generator_seed(0, 0))
    torch.manual_seed(0)
    second = (draws.normal(0, 0, 4).tolist(), draws.uniform("a", 0, 0, 4).tolist(), draws.generator_seed(0, 0))
    assert all(one != other for one, other in zip(first, second, strict=True))
    asked = []
    monkeypatch.setattr("os.urandom", lambda count: asked.append(count) or bytes(count))
    assert draws.normal(0, 0, 4).tolist() == draws.normal(1, 1, 4).tolist()  # nothing else makes them differ
    assert asked == [32, 32]


def draw_after_seeding(_: int) -> list[float]:
    torch.manual_seed(0)
    numbers: list[float] = SecretDraws().normal(0, 0, 3).tolist()
    return numbers


def test_processes_forked_from_one_draw_different_numbers() -> None:
    with multiprocessing.get_context("fork").Pool(2, maxtasksperchild=1) as pool:
        first, second = pool.map(draw_after_seeding, range(2), chunksize=1)
    assert first != second
