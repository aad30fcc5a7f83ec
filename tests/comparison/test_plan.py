from pathlib import Path

import pytest

from flop_p2p.comparison import Arm, build_plan
from flop_p2p.comparison.checks import check
from flop_p2p.config import ComparisonSettings, GossipSettings
from flop_p2p.errors import ConfigError, TopologyError
from flop_p2p.simulation import load_data

OUT = Path("out")


def test_a_gossip_method_runs_on_each_topology_and_any_other_once(experiment):
    plan = build_plan(experiment(methods="local,flop,p2p-flop,dfedavg", topologies="ring,base:1", seeds=3), OUT)
    assert [arm.name for arm in plan.arms] == [
        "local", "flop", "p2p-flop-ring", "p2p-flop-base-1", "dfedavg-ring", "dfedavg-base-1"
    ]  # fmt: skip
    assert list(plan.seeds) == [0, 1, 2]


def test_a_run_differs_from_the_experiment_in_what_it_is_only(experiment):
    settings = experiment({"seed": 7, "topology.weighting": "samples"}, methods="p2p-flop", topologies="full")
    run = build_plan(settings, OUT).run(Arm("p2p-flop", "full"), 8, 0.3)
    assert run.directory == OUT / "runs" / "p2p-flop-full-seed8"
    assert (run.settings.method, run.settings.seed, run.settings.training.lr) == ("p2p-flop", 8, 0.3)
    assert (run.settings.topology.name, run.settings.topology.weighting) == ("full", "samples")
    assert run.settings.comparison == ComparisonSettings()
    assert run.settings.data == settings.data


def test_only_methods_that_gossip_are_compressed(experiment):
    settings = experiment({"gossip.compression": "int8"}, methods="local,flop,p2p-flop", topologies="ring")
    plan = build_plan(settings, OUT)
    assert [plan.run(arm, 0, 0.1).settings.gossip.compression for arm in plan.arms] == ["none", "none", "int8"]
    assert plan.run(plan.arms[0], 0, 0.1).settings.gossip == GossipSettings()


def test_only_methods_that_gossip_are_masked(experiment):
    settings = experiment({"privacy.masking": "pairwise"}, methods="local,flop,p2p-flop", topologies="ring")
    plan = build_plan(settings, OUT)
    assert [plan.run(arm, 0, 0.1).settings.privacy.masking for arm in plan.arms] == ["none", "none", "pairwise"]


def test_a_topology_file_goes_by_its_name_and_names_the_sites_of_all(experiment, tmp_path):
    file = tmp_path / "Two Cities.toml"
    file.write_text('sites = ["ann", "bob", "cid", "dan"]\nedges = [["ann", "bob"], ["bob", "cid"], ["cid", "dan"]]\n')
    settings = experiment(methods="local,p2p-flop", topologies=("ring", str(file)))
    plan = build_plan(settings, OUT)
    assert [arm.name for arm in plan.arms] == ["local", "p2p-flop-ring", "p2p-flop-Two-Cities"]
    assert plan.arms[-1].label == "p2p-flop Two Cities"
    assert [site.name for site in load_data(plan.data_settings(0)).sites] == ["ann", "bob", "cid", "dan"]

    other = tmp_path / "other.toml"
    other.write_text(file.read_text().replace("dan", "eve"))
    with pytest.raises(ConfigError, match="name different sites"):
        build_plan(experiment(methods="p2p-flop", topologies=(str(file), str(other))), OUT)


def test_topologies_that_would_share_a_directory_are_refused(experiment, tmp_path):
    (tmp_path / "ring.toml").write_text('edges = [["hospital-1", "hospital-2"]]\n')
    with pytest.raises(ConfigError, match="would share the directory p2p-flop-ring"):
        build_plan(experiment(methods="p2p-flop", topologies=("ring", str(tmp_path / "ring.toml"))), OUT)


def test_a_grid_needs_validation_data(experiment):
    with pytest.raises(ConfigError, match="validation"):
        build_plan(experiment({"data.split": (0.8, 0, 0.2)}, lr_grid="0.1,0.2"), OUT)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("methods", "local,flip", "methods.1.*'p2p-flop'.*'flip'"),
        ("methods", "flop,flop", "given twice"),
        ("lr_grid", "0.1,-1", "greater than 0"),
        ("lr_grid", "0.1;0.2", "valid number"),
    ],
)
def test_a_wrong_list_is_one_clear_line(experiment, key, value, says):
    with pytest.raises(ConfigError, match=says) as caught:
        experiment(**{key: value})
    assert "\n" not in str(caught.value)


def test_lists_are_read_from_text(experiment):
    comparison = experiment(methods="local, p2p-flop", lr_grid="0.1,0.01").comparison
    assert comparison.methods == ("local", "p2p-flop")
    assert comparison.lr_grid == (0.1, 0.01)


def test_what_cannot_be_built_is_found_before_anything_runs(experiment):
    settings = experiment({"data.sites": 6}, methods="local,p2p-flop", topologies="ring,hypercube")
    plan = build_plan(settings, OUT)
    seeds = []

    def data_of(seed):
        seeds.append(seed)
        return load_data(plan.data_settings(seed))

    with pytest.raises(TopologyError, match="hypercube"):
        check(plan, data_of)
    check(build_plan(experiment({"data.sites": 6}, methods="local,p2p-flop"), OUT), data_of)
    assert seeds[-2:] == [1, 0]
