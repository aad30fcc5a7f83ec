"""The privacy budget of a node: on the disk before it is spent, and never forgotten."""

import json
import re
from pathlib import Path

import pytest
from safetensors.torch import load_file

from flop_p2p.config import PrivacySettings, SitePrivacySettings, SiteSettings
from flop_p2p.errors import ConfigError, NodeError, RunError
from flop_p2p.learning import Ledger, SecretDraws
from flop_p2p.node.checkpoint import Checkpoints, Progress
from flop_p2p.node.preflight import _privacy
from flop_p2p.node.spending import FILE, Spending, budget_of

NOISY = PrivacySettings(noise_multiplier=1.0)


def spending(folder: Path, budget: float | None = None, *, begun: bool = False) -> Spending:
    return Spending(folder, NOISY, 0.1, budget, begun=begun)


def test_steps_are_on_the_disk_before_they_are_taken(tmp_path: Path) -> None:
    assert spending(tmp_path).begin(0, 5)
    assert json.loads((tmp_path / FILE).read_text()) == {"history": [[1.0, 0.1, 5]], "stopped": None}


def test_a_round_that_was_lost_counts_twice(tmp_path: Path) -> None:
    assert spending(tmp_path).begin(0, 5)
    again = spending(tmp_path, begun=True)  # the process died, and the round is trained anew
    assert again.begin(0, 5)
    assert again.describe()["steps"] == 10
    assert again.epsilon == Ledger(NOISY, 0.1, None, [(1.0, 0.1, 10)]).epsilon


def test_to_tell_what_is_spent_computes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The event loop tells it, and would stand still."""
    own = spending(tmp_path)
    own.begin(0, 5)
    own.give_back(2)
    expected = Ledger(NOISY, 0.1, None, [(1.0, 0.1, 3)]).epsilon
    monkeypatch.setattr(Ledger, "epsilon", property(lambda _: pytest.fail("computed")))
    assert own.describe()["epsilon"] == own.epsilon == expected


def test_what_a_stopped_node_did_not_take_is_given_back(tmp_path: Path) -> None:
    first = spending(tmp_path)
    first.begin(0, 5)
    first.give_back(3)
    assert spending(tmp_path, begun=True).describe()["steps"] == 2


def test_the_round_from_which_nothing_is_sent_is_kept(tmp_path: Path) -> None:
    budget = Ledger(NOISY, 0.1, None, [(1.0, 0.1, 10)]).epsilon
    first = spending(tmp_path, budget)
    assert first.begin(0, 5)
    assert first.begin(1, 5)
    assert not first.begin(2, 5)
    assert not first.begin(3, 5)
    again = spending(tmp_path, budget, begun=True)
    assert again.describe()["stopped"] == 3  # counted from 1
    assert again.describe()["steps"] == 10
    assert not again.begin(4, 5)
    raised = spending(tmp_path, 2 * budget, begun=True)
    assert raised.begin(5, 5)
    assert raised.describe()["stopped"] is None


@pytest.mark.parametrize(
    "content",
    ["", "{}", '{"history": [[1.0, 0.1, -5]], "stopped": null}', '{"history": [[1.0, NaN, 5]], "stopped": null}'],
)
def test_a_damaged_file_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    with pytest.raises(NodeError, match=r"privacy\.json: damaged .*nobody knows what the bodies that left have spent"):
        spending(tmp_path)


def test_a_missing_file_is_refused_where_the_node_has_trained(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"privacy\.json: is missing, and this node has trained"):
        spending(tmp_path, begun=True)


def test_without_a_disk_no_step_is_taken(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"privacy\.json"):
        spending(tmp_path / "gone").begin(0, 5)


def a_site(epsilon: float | None) -> SiteSettings:
    return SiteSettings(name="north", privacy=SitePrivacySettings(epsilon=epsilon))


@pytest.mark.parametrize(
    ("common", "own", "budget"), [(None, None, None), (8, None, 8), (None, 4, 4), (8, 4, 4), (4, 8, 4)]
)
def test_the_stricter_budget_counts(common: float | None, own: float | None, budget: float | None) -> None:
    assert budget_of(NOISY.model_copy(update={"epsilon": common}), a_site(own)) == budget


def test_a_budget_without_noise_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"site north: privacy\.epsilon in site\.toml is a budget"):
        budget_of(PrivacySettings(), a_site(4))


def test_preflight_tells_how_far_the_budget_goes(hospitals) -> None:  # type: ignore[no-untyped-def]
    three = hospitals(privacy__noise_multiplier=2.0, training__rounds=20)
    whole = _privacy(a_site(None), three.federation, 0.2, 5)
    spent = Ledger(three.federation.privacy, 0.2, None, [(2.0, 0.2, 100)]).epsilon
    assert whole == f"epsilon {spent:.2f} at delta 1e-05, a record, for all rounds"
    part = _privacy(a_site(spent / 2), three.federation, 0.2, 5)
    found = re.fullmatch(rf"epsilon ([\d.]+) of {spent / 2:g} at delta 1e-05, a record, for (\d+) of 20 rounds", part)
    assert found
    assert float(found[1]) <= spent / 2
    assert 0 < int(found[2]) < 20
    with pytest.raises(ConfigError, match=r"epsilon 0\.01 is spent before the first round is over"):
        _privacy(a_site(0.01), three.federation, 0.2, 5)


def test_a_node_draws_from_the_operating_system(hospitals) -> None:  # type: ignore[no-untyped-def]
    three = hospitals(privacy__noise_multiplier=1.0)
    learner = three.model()._learner
    assert isinstance(learner._draws, SecretDraws)
    assert three.model().sampling_rate == learner.rate
    assert hospitals().model().sampling_rate is None


def test_patients_that_the_files_of_a_site_do_not_tell(hospitals) -> None:  # type: ignore[no-untyped-def]
    three = hospitals(privacy__noise_multiplier=1.0)
    privacy = three.federation.privacy.model_copy(update={"unit": "patient"})
    with pytest.raises(ConfigError, match=r"site hospital-1: privacy\.unit = 'patient', and the data tell no patients"):
        three.model(privacy=privacy)


def test_a_checkpoint_inside_a_private_round_holds_no_random_state(hospitals, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    three = hospitals(privacy__noise_multiplier=1.0, training__local_steps=3, training__augmentation=("crop:1",))
    partway = three.model().train(0, lambda: True)
    Checkpoints(tmp_path).save(three.model(), Progress(0, "training", "", "", partway))
    names = [name for file in tmp_path.glob("checkpoint-*") for name in load_file(file)]
    assert "partway/losses" in names
    assert not any("random" in name for name in names)
    model = three.model()
    progress = Checkpoints(tmp_path).load(model)
    assert progress is not None
    assert progress.partway is not None
    assert progress.partway.step == 1
    assert isinstance(model.train(0, lambda: False, progress.partway), float)
