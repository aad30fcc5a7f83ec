"""Strict settings: unknown keys with suggestions, wrong types in one line, schedules, what differs."""

import subprocess
import sys
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, ValidationError

from flop_p2p.config import (
    DataSettings,
    ExperimentSettings,
    ModelSettings,
    Settings,
    TopologySettings,
    TrainingSettings,
    learning_rate_factor,
    read_toml,
    validate,
)
from flop_p2p.config.base import first_difference
from flop_p2p.errors import ConfigError

SECTIONS = [ExperimentSettings, DataSettings, ModelSettings, TopologySettings, TrainingSettings]


def refusal(values: dict) -> str:
    """The one line that `validate` answers with."""
    with pytest.raises(ConfigError) as error:
        validate(ExperimentSettings, values, "here.toml")
    text = str(error.value)
    assert text.startswith("here.toml: ")
    for noise in ("\n", "Traceback", "pydantic", "validation error", "Value error"):
        assert noise not in text
    return text


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ({"sede": 1}, "sede: unknown key; did you mean 'seed'?"),
        ({"training": {"lerning": 1}}, "training.lerning: unknown key; "),
        ({"training": {"batchsize": 8}}, "training.batchsize: unknown key; did you mean 'batch_size'?"),
        ({"topology": {"weighing": "uniform"}}, "topology.weighing: unknown key; did you mean 'weighting'?"),
        ({"trainings": {"lr": 0.1}}, "trainings: unknown key; did you mean 'training'?"),
        ({"training": {"sites": 4}}, "training.sites: unknown key; "),
    ],
)
def test_unknown_keys(values: dict, text: str) -> None:
    assert refusal(values).startswith(f"here.toml: {text}")


def test_an_unknown_key_like_no_other_lists_those_there_are() -> None:
    text = refusal({"model": {"qqqq": 1}})
    assert text.endswith(f"known keys are {', '.join(sorted(ModelSettings.model_fields))}")


def test_unknown_keys_inside_lists_and_tables() -> None:
    class Link(BaseModel):
        model_config = {"extra": "forbid"}
        site: str

    class Links(Settings):
        links: tuple[Link, ...] = ()
        named: Mapping[str, Link] = Field(default_factory=dict)

    for values in ({"links": [{"site": "a", "weigth": 1}]}, {"named": {"x": {"site": "a", "weigth": 1}}}):
        with pytest.raises(ConfigError, match=r"weigth: unknown key$"):
            validate(Links, values, "here.toml")


@pytest.mark.parametrize(
    ("values", "parts"),
    [
        ({"seed": "three"}, ("seed: ", "integer", "'three'")),
        ({"seed": -1}, ("seed: ", "greater than or equal to 0", "-1")),
        ({"data": 3}, ("data: ", "dictionary", "3")),
        ({"data": {"sites": 2.5}}, ("data.sites: ", "integer", "2.5")),
        ({"data": {"split": "0.5,0.5"}}, ("data.split: ", "three fractions", "0.5,0.5")),
        ({"data": {"split": [0.5, 0.4, 0.2]}}, ("data.split: ", "sum to 1", "[0.5, 0.4, 0.2]")),
        ({"training": {"head_loss": "logit-adjusted", "sampling": "balanced"}}, ("logit-adjusted", "'shuffle'")),
        ({"training": {"head_loss": "logit-adjusted", "class_weights": "balanced"}}, ("logit-adjusted", "'none'")),
        ({"training": {"early_stopping": 2}, "data": {"split": "0.8,0,0.2"}}, ("early_stopping", "validation")),
        ({"training": {"early_stopping": 2}, "evaluate_every": 0}, ("early_stopping", "evaluate_every")),
        ({"data": {"partition": "dirichlet"}}, ("data.partition: ", "dirichlet:ALPHA", "'dirichlet'")),
        ({"data": {"partition": "dirichlet:-1"}}, ("data.partition: ", "dirichlet:ALPHA")),
        ({"data": {"source": "mnist"}}, ("data.source: ", "'medmnist'", "'mnist'")),
        ({"model": {"private": "head.*"}}, ("model.private: ", "tuple", "'head.*'")),
        ({"model": {"batch_norm": "no"}}, ("model.batch_norm: ", "'shared' or 'private'")),
        ({"training": {"lr": 0}}, ("training.lr: ", "greater than 0")),
        ({"training": {"lr": float("nan")}}, ("training.lr: ", "finite", "nan")),
        ({"training": {"lr": float("inf")}}, ("training.lr: ", "finite", "inf")),
        ({"training": {"momentum": 1.0}}, ("training.momentum: ", "less than 1")),
        ({"training": {"batch_size": 0}}, ("training.batch_size: ",)),
        ({"training": {"optimizer": ["sgd"]}}, ("training.optimizer: ", "'adamw'")),
        ({"training": {"schedule": "step:10"}}, ("training.schedule: ", "step:EVERY:FACTOR", "'step:10'")),
        ({"topology": {"weighting": "by\nsize"}}, ("topology.weighting: ", r"'by\nsize'")),
    ],
)
def test_wrong_values_end_in_one_line(values: dict, parts: tuple[str, ...]) -> None:
    text = refusal(values)
    assert all(part in text for part in parts), text


@pytest.mark.parametrize("section", SECTIONS)
def test_settings_are_frozen(section: type[Settings]) -> None:
    settings = section()
    name = next(iter(section.model_fields))
    with pytest.raises(ValidationError, match="frozen"):
        setattr(settings, name, getattr(settings, name))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_says_what_it_is(section: type[Settings]) -> None:
    for name, field in section.model_fields.items():
        is_section = isinstance(field.annotation, type) and issubclass(field.annotation, Settings)
        assert is_section or field.description, name


def test_settings_survive_a_round_trip() -> None:
    settings = ExperimentSettings(seed=4, training=TrainingSettings(schedule="step:3:0.5", local_steps=7))
    assert validate(ExperimentSettings, settings.model_dump(mode="json"), "here.toml") == settings


def test_schedules_over_rounds() -> None:
    assert {learning_rate_factor("constant", number, 9) for number in range(9)} == {1.0}
    steps = [learning_rate_factor("step:2:0.1", number, 6) for number in range(6)]
    assert steps == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    cosine = [learning_rate_factor("cosine", number, 4) for number in range(4)]
    assert cosine == pytest.approx([1, 0.5 + 0.5 * 0.5**0.5, 0.5, 0.5 - 0.5 * 0.5**0.5])


@given(st.integers(1, 200), st.data())
def test_cosine_falls_and_stays_positive(rounds: int, data: st.DataObject) -> None:
    factors = [learning_rate_factor("cosine", number, rounds) for number in range(rounds)]
    assert factors[0] == 1
    assert all(later < earlier for earlier, later in pairwise(factors))
    assert factors[-1] > 0


@pytest.mark.parametrize(
    "schedule",
    [
        *("", "linear", "cosine:3", "step", "step:0:0.5", "step:-1:0.5", "step:1:0", "step:1:-1", "step:a:b"),
        *("step:1:inf", "step:1:nan", "step:²:0.5", "step:1.5:0.5", "step:1:0.5:2"),
    ],
)
def test_wrong_schedules(schedule: str) -> None:
    with pytest.raises(ValueError, match="a schedule is constant, cosine or step:EVERY:FACTOR"):
        learning_rate_factor(schedule, 0, 1)
    assert "a schedule is constant, cosine or" in refusal({"training": {"schedule": schedule}})


def test_toml_that_cannot_be_read_names_the_file(tmp_path: Path) -> None:
    broken, binary = tmp_path / "broken.toml", tmp_path / "binary.toml"
    broken.write_text('[data]\nsource = "digits\n')
    binary.write_bytes(b"seed = 1 # \xff\xfe")
    long, deep, hexadecimal = (tmp_path / f"{name}.toml" for name in ("long", "deep", "hexadecimal"))
    hexadecimal.write_text("seed = 0x" + "f" * 5000)
    long.write_text("seed = " + "9" * 5000)
    deep.write_text("seed = " + "[" * 3000 + "]" * 3000)
    cases = {
        long: r"long\.toml: not a valid TOML file: .*digits",
        hexadecimal: r"hexadecimal\.toml: not a valid TOML file: .*digits",
        deep: r"deep\.toml: not a valid TOML file: too many brackets",
        broken: r"broken\.toml: not a valid TOML file: .*line 2",
        binary: r"binary\.toml: not a valid TOML file",
        tmp_path / "absent.toml": r"absent\.toml: cannot read this file \(No such file",
        tmp_path: "cannot read this file",
    }
    for path, text in cases.items():
        with pytest.raises(ConfigError, match=text) as error:
            read_toml(path)
        assert str(error.value).startswith(str(path))
        assert "\n" not in str(error.value)


def test_first_difference_names_key_and_values() -> None:
    before = ExperimentSettings(seed=1)
    assert first_difference(before, ExperimentSettings(seed=1)) is None
    now = ExperimentSettings(seed=1, threads=2, training=TrainingSettings(lr=0.5))
    assert first_difference(before, now) == "threads was 1 and is now 2"
    assert first_difference(before, now, {"threads"}) == "training.lr was 0.01 and is now 0.5"
    assert first_difference(before, now, {"threads", "training.lr"}) is None


def test_settings_need_no_torch() -> None:
    code = "import sys, flop_p2p.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
