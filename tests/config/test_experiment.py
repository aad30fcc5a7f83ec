"""`experiment.toml`, presets, and what overrides what."""

from pathlib import Path

import pytest
import tomli_w

from flop_p2p.config import PRESETS, ExperimentSettings, load_experiment
from flop_p2p.config.experiment import MethodName
from flop_p2p.errors import ConfigError


@pytest.fixture
def experiment(tmp_path: Path) -> Path:
    """An `experiment.toml` that sets some of what the preset `flop-paper` sets, and something else."""
    path = tmp_path / "experiment.toml"
    path.write_text('method = "flop"\n[training]\nlr = 0.3\nrounds = 7\n[data]\nsites = 4\nsplit = [0.5, 0.25, 0.25]\n')
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_presets_load(name: str) -> None:
    assert load_experiment(preset=name) != ExperimentSettings()


def test_there_is_a_preset_file_for_every_name() -> None:
    folder = Path(__file__).parents[2] / "flop_p2p" / "config" / "presets"
    assert {path.stem for path in folder.glob("*.toml")} == set(PRESETS)


def test_the_preset_of_the_paper() -> None:
    settings = load_experiment(preset="flop-paper")
    training = settings.training
    assert (settings.data.sites, settings.data.partition, settings.model.name) == (5, "shards:1", "resnet50")
    assert (training.rounds, training.local_epochs, training.batch_size) == (100, 3, 10)
    assert (training.optimizer, training.lr, training.weight_decay) == ("adam", 5e-4, 1e-7)
    assert (training.optimizer_state, training.participation) == ("reset", 0.4)
    assert (settings.topology.weighting, settings.model.weights) == ("samples", None)


def test_defaults_without_anything() -> None:
    assert load_experiment() == ExperimentSettings()
    assert ExperimentSettings().method == "p2p-flop"


def test_file_over_preset_and_overrides_over_both(experiment: Path) -> None:
    overrides = {"training.lr": 0.9, "data.partition": "dirichlet:0.3", "seed": 5}
    settings = load_experiment(experiment, "flop-paper", overrides)
    assert settings.training.lr == 0.9  # override over file over preset
    assert settings.training.rounds == 7  # file over preset
    assert settings.training.batch_size == 10  # preset
    assert settings.training.momentum == 0.9  # default
    assert (settings.data.sites, settings.data.partition, settings.seed) == (4, "dirichlet:0.3", 5)
    assert settings.method == "flop"


def test_loading_twice_gives_the_same(experiment: Path) -> None:
    first = load_experiment(experiment, "quick", {"training.lr": 0.9})
    assert load_experiment(experiment, "quick", {"training.lr": 0.9}) == first
    assert load_experiment(preset="quick").training.lr == 0.05


def test_settings_written_as_toml_load_again(tmp_path: Path) -> None:
    settings = load_experiment(preset="flop-paper", overrides={"data.split": "0.8,0,0.2"})
    path = tmp_path / "config.toml"
    path.write_text(tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True)))
    assert load_experiment(path) == settings


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"preset": "slow"}, "--preset slow: no such preset; there are quick, flop-paper"),
        ({"preset": "../quick"}, "no such preset"),
        ({"overrides": {"training.lr": "fast"}}, "command line: training.lr: .*number.*'fast'"),
        ({"overrides": {"training.rates": 1}}, "command line: training.rates: unknown key"),
        ({"overrides": {"method": "flopp"}}, "command line: method: .*'p2p-flop'.*'flopp'"),
        ({"overrides": {"comparison.methods": ("flop", "best")}}, r"comparison.methods.1: .*'best'"),
        ({"overrides": {"comparison.methods": "flop,flop"}}, r"comparison.methods: the same one is given twice"),
        ({"overrides": {"comparison.lr_grid": (0.1, -1.0)}}, r"comparison.lr_grid.1: .*greater than 0"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(arguments: dict, text: str) -> None:
    with pytest.raises(ConfigError, match=text) as error:
        load_experiment(**arguments)
    assert "\n" not in str(error.value)


def test_an_error_of_the_file_names_the_file_even_with_overrides(experiment: Path) -> None:
    experiment.write_text("[training]\nlr = -1\n")
    with pytest.raises(ConfigError, match=r"experiment\.toml: training\.lr: ") as error:
        load_experiment(experiment, overrides={"training.lr": 0.1})
    assert str(error.value).startswith(str(experiment))


def test_methods_as_text() -> None:
    settings = load_experiment(overrides={"comparison.methods": "local, flop", "comparison.lr_grid": "0.1,0.2"})
    assert settings.comparison.methods == ("local", "flop")
    assert settings.comparison.lr_grid == (0.1, 0.2)


def test_every_method_name_is_accepted() -> None:
    names = MethodName.__args__  # type: ignore[attr-defined]
    assert {"majority", "local", "pooled", "fedavg", "fedavg-ft", "flop", "dfedavg"} < set(names)
    assert all(load_experiment(overrides={"method": name}).method == name for name in names)
