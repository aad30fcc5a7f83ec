import json

import pytest

from flop_p2p.comparison import compare
from flop_p2p.errors import Interrupted, RunError, TrainingError
from flop_p2p.simulation import load_data


def names(calls):
    return [path.name for path in calls]


def stop_at(seed, method):
    def fail(settings):
        if (settings.seed, settings.method) == (seed, method):
            raise Interrupted("stopped after 1 of 3 rounds; go on with the wrong command")

    return fail


def test_runs_go_seed_by_seed_on_data_loaded_once_a_seed(experiment, fake, tmp_path):
    loaded = []

    def load(settings):
        loaded.append(settings.seed)
        return load_data(settings)

    out = tmp_path / "out"
    compare(experiment(methods="local,p2p-flop", topologies="ring,full"), out, simulate=fake, load=load)
    assert names(fake.calls) == [
        "local-seed0", "p2p-flop-ring-seed0", "p2p-flop-full-seed0",
        "local-seed1", "p2p-flop-ring-seed1", "p2p-flop-full-seed1",
    ]  # fmt: skip
    assert len({id(data) for data in fake.datas[:3]}) == 1
    assert len({id(data) for data in fake.datas[3:]}) == 1
    assert fake.datas[0] is not fake.datas[3]
    assert loaded == [1, 0, 1]  # checked from the last seed to the first, then run


def test_comparison_json_holds_what_the_table_shows(experiment, fake, tmp_path):
    settings = experiment(methods="local,flop,p2p-flop", seeds=5)
    compare(settings, tmp_path / "out", simulate=fake)
    content = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert content["seeds"] == [0, 1, 2, 3, 4]
    assert content["settings"]["data"]["source"] == "breast-cancer"
    assert set(content["versions"]) == {"flop_p2p", "torch", "numpy", "python"}
    local, flop, gossip = content["results"]
    assert (gossip["method"], gossip["topology"], local["topology"]) == ("p2p-flop", "ring", None)
    accuracy = gossip["metrics"]["accuracy"]
    assert accuracy["mean"] == pytest.approx(0.897)
    assert accuracy["low"] < 0.897 < accuracy["high"]
    assert accuracy["per_seed"]["4"] == pytest.approx(0.899)
    assert gossip["worst_site"]["mean"] == pytest.approx(0.877)
    assert (gossip["bytes_total"]["mean"], gossip["bytes_busiest"]["mean"]) == (3000, 2000)
    assert gossip["differences"]["accuracy"]["estimate"]["mean"] == pytest.approx(-0.005)
    assert gossip["differences"]["accuracy"]["verdict"] == "matches"
    assert local["differences"]["balanced_accuracy"]["verdict"] == "falls short"
    assert flop["differences"] == {}
    # The target is flop's final accuracy less one point: reached in the last round, by local never.
    assert gossip["rounds_to_target"]["mean"] == 3
    assert local["rounds_to_target"]["mean"] is None
    assert gossip["target_accuracy"]["2"] == pytest.approx(0.892)
    assert gossip["site_accuracy"]["a"] == pytest.approx(0.877)
    assert gossip["curve"]["rounds"] == [1, 2, 3]


def test_a_target_of_ones_own_counts_the_seeds_that_reached_it(experiment, fake, tmp_path):
    settings = experiment(methods="local,fedavg", seeds=3, target_accuracy=0.8515)
    comparison = compare(settings, tmp_path / "out", simulate=fake)
    local, fedavg = (result.rounds_to_target for result in comparison.arms)
    assert (local.mean, local.counted) == (None, 0)
    assert (fedavg.mean, fedavg.counted) == (3, 1)
    assert not comparison.has_reference
    assert fedavg.per_seed == {0: None, 1: None, 2: 3}


def test_an_interrupted_comparison_tells_how_to_go_on_and_does(experiment, fake, tmp_path):
    out = tmp_path / "my out"
    settings = experiment(methods="local,flop")
    fake.fail = stop_at(1, "local")
    with pytest.raises(Interrupted, match=r"after 2 of 4 runs.*compare '.*config.toml' --out '.*my out' --resume"):
        compare(settings, out, simulate=fake)
    assert not (out / "comparison.json").exists()

    fake.calls.clear()
    fake.fail = lambda settings: None
    compare(settings, out, resume=True, simulate=fake)
    assert names(fake.calls) == ["local-seed1", "flop-seed1"]
    assert fake.resumed[-2:] == [True, False]
    assert (out / "comparison.json").exists()


def test_ctrl_c_between_runs_is_an_interruption_too(experiment, fake, tmp_path):
    def load(settings):
        raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="before the first run"):
        compare(experiment(), tmp_path / "out", simulate=fake, load=load)
    assert not (tmp_path / "out").exists()


def test_more_seeds_and_methods_can_be_added_to_a_finished_comparison(experiment, fake, tmp_path):
    compare(experiment(methods="local"), tmp_path / "out", simulate=fake)
    fake.calls.clear()
    compare(experiment(methods="flop,local", seeds=3), tmp_path / "out", resume=True, simulate=fake)
    assert names(fake.calls) == ["flop-seed0", "flop-seed1", "flop-seed2", "local-seed2"]


def test_a_directory_in_use_is_refused_in_one_line_that_says_what_to_do(experiment, fake, tmp_path):
    out = tmp_path / "out"
    compare(experiment(methods="local"), out, resume=True, simulate=fake)  # nothing there yet: it begins
    config = (out / "config.toml").read_text()
    with pytest.raises(RunError, match="add --resume"):
        compare(experiment(methods="local"), out, simulate=fake)
    with pytest.raises(RunError, match=r"training.rounds was 3 and is now 4"):
        compare(experiment({"training.rounds": 4}, methods="local"), out, resume=True, simulate=fake)
    assert (out / "config.toml").read_text() == config
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(RunError, match="not a comparison"):
        compare(experiment(methods="local"), tmp_path, simulate=fake)
    with pytest.raises(RunError, match="cannot be the directory"):
        compare(experiment(methods="local"), tmp_path / "letter.txt", simulate=fake)


def test_a_damaged_run_is_named(experiment, fake, tmp_path):
    settings = experiment(methods="local")
    compare(settings, tmp_path / "out", simulate=fake)
    (tmp_path / "out" / "runs" / "local-seed1" / "summary.json").write_text('{"lr"')
    with pytest.raises(RunError, match=r"local-seed1.summary.json: cannot be read"):
        compare(settings, tmp_path / "out", resume=True, simulate=fake)


def test_a_run_that_fails_is_named(experiment, fake, tmp_path):
    def diverge(settings):
        raise TrainingError("the loss is not finite")

    fake.fail = diverge
    with pytest.raises(TrainingError, match="flop-seed0: the loss"):
        compare(experiment(methods="flop"), tmp_path / "out", simulate=fake)


def test_each_method_takes_the_rate_of_the_grid_that_is_best_on_validation_data(experiment, fake, tmp_path):
    settings = experiment({"training.lr": 0.3}, methods="majority,flop", lr_grid="0.1,0.05,0.01,9")

    def diverge_at_nine(settings):
        if settings.training.lr == 9:
            raise TrainingError("the loss is not finite")

    fake.fail = diverge_at_nine
    comparison = compare(settings, tmp_path / "out", simulate=fake)
    assert names(fake.calls)[:4] == ["flop-lr0.01", "flop-lr0.05", "flop-lr0.1", "flop-lr9.0"]
    assert names(fake.calls)[4:6] == ["majority-seed0", "flop-seed0"]
    assert [result.lr for result in comparison.arms] == [None, 0.05]
    (outcome,) = json.loads((tmp_path / "out" / "comparison.json").read_text())["lr_grid"]
    assert outcome["chosen"] == 0.05
    assert outcome["validation_accuracy"]["9.0"] is None


def test_a_grid_at_which_everything_diverges_is_an_error(experiment, fake, tmp_path):
    def diverge(settings):
        raise TrainingError("the loss is not finite")

    fake.fail = diverge
    with pytest.raises(TrainingError, match="every rate"):
        compare(experiment(methods="flop", lr_grid="5,6"), tmp_path / "out", simulate=fake)
