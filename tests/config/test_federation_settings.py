"""What makes a file a federation, and what its id covers."""

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from flop_p2p.config import FederationSettings, GossipSettings, SampleSettings, SiteSettings, load_federation, validate
from flop_p2p.errors import ConfigError

KEYS = "0123456789abcdef"


def member(name: str, number: int = 0, **values: Any) -> dict[str, Any]:
    key = KEYS[number]
    return {"name": name, "curve_key": key * 40, "signing_key": key * 64, **values}


def tables(**values: Any) -> dict[str, Any]:
    """A federation of three sites as it is read from a file."""
    members = [member(name, number, control=f"tcp://{name}:5700") for number, name in enumerate(("ann", "bob", "cid"))]
    samples = {"task": "multiclass", "class_names": ["no", "yes", "maybe"], "shape": [1, 8, 8]}
    return {"name": "retina", "samples": samples, "members": members, **values}


def federation(**values: Any) -> FederationSettings:
    return validate(FederationSettings, tables(**values), "federation.toml")


def refusal(**values: Any) -> str:
    with pytest.raises(ConfigError) as error:
        federation(**values)
    assert "\n" not in str(error.value)
    return str(error.value)


# Reading


def test_a_federation_is_read_from_its_file(tmp_path: Path) -> None:
    (tmp_path / "federation.toml").write_text(tomli_w.dumps(tables(gossip={"deadline": 5})))
    settings = load_federation(tmp_path / "federation.toml")
    assert settings == federation(gossip={"deadline": 5.0})
    assert settings.names == settings.sites == ("ann", "bob", "cid")
    assert settings.member("bob").control == "tcp://bob:5700"
    with pytest.raises(KeyError, match="dan"):
        settings.member("dan")


def test_names_are_ascending_and_a_server_is_no_site() -> None:
    settings = federation(members=[member("zoe"), member("bob", 1, role="server"), member("ann", 2)])
    assert settings.names == ("ann", "bob", "zoe")
    assert settings.sites == ("ann", "zoe")


SAMPLES = tables()["samples"]
WRONG_SAMPLES = {
    "one class": ({"class_names": ["a"]}, "two classes or more"),
    "a class twice": ({"class_names": ["a", "b", "a"]}, "class 'a' is named twice"),
    "three classes for two": ({"task": "binary"}, "task 'binary' has two classes, class_names has 3"),
    "no shape": ({"shape": []}, "three numbers"),
    "two numbers": ({"shape": [8, 8]}, "three numbers"),
    "an empty side": ({"shape": [1, 0, 8]}, "greater than or equal to 1, got 0"),
    "mean alone": ({"mean": [0.5]}, "both mean and std"),
    "std alone": ({"std": [0.5]}, "both mean and std"),
    "three means of one channel": ({"mean": [0, 0, 0], "std": [1]}, "mean has 3 numbers, and the shape 1 channels"),
    "three stds of one channel": ({"mean": [0], "std": [1, 1, 1]}, "std has 3 numbers"),
    "no spread": ({"mean": [0], "std": [0]}, "greater than 0, got 0"),
}


@pytest.mark.parametrize(("values", "text"), WRONG_SAMPLES.values(), ids=WRONG_SAMPLES)
def test_wrong_samples(values: dict[str, Any], text: str) -> None:
    refused = refusal(samples={**SAMPLES, **values})
    assert refused.startswith("federation.toml: samples")
    assert text in refused


def test_right_samples() -> None:
    SampleSettings(task="multilabel", class_names=("edema",), shape=(30,), mean=(0.5,) * 30, std=(1,) * 30)
    given_as_text = SampleSettings(task="binary", class_names="no, yes", shape="3,8,8", mean="0,0,0.5", std="1,1,2")
    assert given_as_text == SampleSettings(
        task="binary", class_names=("no", "yes"), shape=(3, 8, 8), mean=(0, 0, 0.5), std=(1, 1, 2)
    )


@pytest.mark.parametrize(
    "name",
    ["", " north", "north ", "no\nrth", "no\x00rth", "no\x1b[31mrth", "no\u202erth", "no\u2028rth", "n" * 65, "\ud800"],
)
def test_names_that_cannot_be_shown_in_one_line(name: str) -> None:
    assert "name: " in refusal(members=[member(name), member("bob", 1)])
    assert "name: " in refusal(name=name)


@pytest.mark.parametrize("name", ["St. Mary's, Linz", "Krankenhaus Süd", "病院", "n" * 64])
def test_names_of_hospitals(name: str) -> None:
    assert name in federation(members=[member(name), member("bob", 1)]).names


@pytest.mark.parametrize("alike", ["ann", "Ann", "ａnn", "ANN"])
def test_names_that_look_the_same(alike: str) -> None:
    refused = refusal(members=[member("ann"), member("bob", 1), member(alike, 2)])
    assert f"members need names that people can tell apart: 'ann' and {alike!r}" in refused


@pytest.mark.parametrize(
    "endpoint",
    [
        *("north:5700", "tcp://north", "tcp://:5700", "tcp://north:0", "tcp://north:65536", "tcp://north:5700/x"),
        *("udp://north:5700", "tcp://no rth:5700", "tcp://north:-1", "tcp://north:*", "tcp://north:５７"),
        *("tcp://a..b:5000", "tcp://.:5000", f"tcp://{'x' * 64}:5000", "tcp://a\0b:5000"),
    ],
)
def test_wrong_addresses(endpoint: str) -> None:
    assert "members.0.control: " in refusal(members=[member("ann", control=endpoint), member("bob", 1)])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("listen", "tcp://a..b:5700"),
        ("proxy", "a..b:1080"),
        ("proxy", "proxy:65536"),
        ("metrics", {"listen": "a..b:9000"}),
        ("addresses", {"bob": {"control": "tcp://a..b:5700"}}),
    ],
)
def test_wrong_addresses_of_a_site(key: str, value: object) -> None:
    with pytest.raises(ConfigError, match=rf"site\.toml: {key}.*, got ") as error:
        validate(SiteSettings, {"name": "ann", key: value}, "site.toml")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("endpoint", ["tcp://10.1.2.3:1", "tcp://[fe80::1]:65535", "tcp://north.example:5700"])
def test_addresses(endpoint: str) -> None:
    assert federation(members=[member("ann", control=endpoint), member("bob", 1)]).member("ann").control == endpoint


def test_other_wrong_values() -> None:
    assert "members: " in refusal(members=[member("ann")])
    assert "curve_key" in refusal(members=[member("ann", curve_key="~" * 40), member("bob", 1)])
    assert "signing_key" in refusal(members=[member("ann", signing_key="A" * 64), member("bob", 1)])
    assert "members.0.port: unknown key" in refusal(members=[member("ann", port=1), member("bob", 1)])
    assert "gossip.dedline: unknown key; did you mean 'deadline'?" in refusal(gossip={"dedline": 1})
    assert "at least twice heartbeat" in refusal(gossip={"heartbeat": 5})
    assert "top_k needs compression = 'top-k', and compression is 'int8'" in refusal(
        gossip={"compression": "int8", "top_k": 0.1}
    )
    assert "masking_range needs masking = 'pairwise', and masking is 'none'" in refusal(privacy={"masking_range": 2})
    assert "which gossip.compression = 'int8' cannot make smaller" in refusal(
        gossip={"compression": "int8"}, privacy={"masking": "pairwise"}
    )
    assert "consensus_step needs compression" in refusal(gossip={"consensus_step": 1})
    assert "epsilon needs a noise_multiplier above 0" in refusal(privacy={"epsilon": 8})
    for key, value in (("head_loss", "logit-adjusted"), ("class_weights", "balanced"), ("sampling", "balanced")):
        refused = refusal(training={key: value}, privacy={"noise_multiplier": 1})
        assert f"training.{key} = {value!r} goes by the counts of a site's labels" in refused
    refused = refusal(model={"batch_norm": "private"}, privacy={"noise_multiplier": 1})
    assert "GroupNorm takes the place of BatchNorm" in refused
    assert "'logit-adjusted' corrects for the class prior already" in refusal(
        training={"head_loss": "logit-adjusted", "sampling": "balanced"}
    )


def test_a_topology_file_comes_with_its_content() -> None:
    graph = {"sites": ["ann", "bob", "cid"], "edges": [["ann", "bob", 0.5], ["bob", "cid", 0.25]]}
    assert "its content is not in graph" in refusal(topology={"name": "net.toml"})
    assert "topology.name names none" in refusal(graph=graph)
    settings = federation(topology={"name": "net.toml"}, graph=graph)
    assert settings.graph is not None
    assert settings.graph.weighted
    assert json.loads(settings.canonical)["graph"]["edges"] == graph["edges"]


def test_an_edge_without_weight_is_written_as_in_a_topology_file() -> None:
    graph = {"sites": ["ann", "bob", "cid"], "edges": [["ann", "bob"], ["bob", "cid"]]}
    settings = federation(topology={"name": "net.toml"}, graph=graph)
    assert json.loads(settings.canonical)["graph"]["edges"] == graph["edges"]
    assert FederationSettings.model_validate(settings.model_dump(mode="json")) == settings


# The id

ENDPOINT = st.builds("tcp://{}:{}".format, st.sampled_from(["a", "b.example"]), st.integers(1, 65535))
SIGNATURES = st.lists(
    st.fixed_dictionaries(
        {"member": st.just("ann"), "signature": st.text("0123456789abcdef", min_size=128, max_size=128)}
    ),
    max_size=2,
)


@given(
    order=st.permutations(range(3)), addresses=st.lists(st.none() | ENDPOINT, min_size=6, max_size=6), names=SIGNATURES
)
def test_the_id_depends_on_no_order_address_or_signature(
    order: list[int], addresses: list[str | None], names: list[dict[str, str]]
) -> None:
    members = tables()["members"]
    changed = [{**members[index], "control": addresses[index], "bulk": addresses[index + 3]} for index in order]
    before, after = federation(), federation(members=changed, signatures=names)
    assert after.canonical == before.canonical
    assert after.id == before.id
    assert after.names == before.names


def complete(gossip: dict[str, Any], privacy: dict[str, Any]) -> FederationSettings:
    """A federation in which nothing that can be set is left empty; not all of it goes together."""
    return federation(
        samples={**SAMPLES, "mean": [0.5], "std": [0.25]},
        topology={"name": "net.toml"},
        graph={"sites": ["ann"], "edges": [["ann", "bob", 0.5]], "own_weights": {"ann": 0.5}},
        gossip=gossip,
        privacy=privacy,
    )


COMPLETE = [
    complete({"compression": "top-k"}, {}),
    complete({}, {"masking": "pairwise"}),
    complete({}, {"noise_multiplier": 1, "epsilon": 8}),
]
TEXTS = (
    *("multilabel", "flop", "private", "uniform", "samples", "adam", "cosine", "reset", "logit-adjusted", "balanced"),
    *("wait", "curve", "int8", "pairwise", "none", "patient", "prv", "server", "other.toml", "other"),
    *("f" * 40, "f" * 64, "tcp://f:1"),
)
LISTS = (["a", "b", "d"], [1, 8, 9], [0.75], ["d"], [["bob", "cid", 0.5]], [{"member": "ann", "signature": "f" * 128}])


def others(value: Any) -> list[Any]:
    """Values that may stand in the place of another, some of them of a wrong kind."""
    numbers = [value + 1, value / 2] if isinstance(value, int | float) else [1]
    return [not value, *numbers, *TEXTS, *LISTS]


def leaves(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(values, dict):
        return [leaf for key, value in values.items() for leaf in leaves(value, (*path, key))]
    if isinstance(values, list) and any(isinstance(value, dict) for value in values):
        return [leaf for index, value in enumerate(values) for leaf in leaves(value, (*path, index))]
    return [path]


@pytest.mark.parametrize("path", leaves(COMPLETE[0].model_dump(mode="json")), ids=lambda path: ".".join(map(str, path)))
def test_every_other_setting_changes_the_id(path: tuple[Any, ...]) -> None:
    different = []
    for before in COMPLETE:
        for value in others(value_at(before.model_dump(mode="json"), path)):
            values = before.model_dump(mode="json")
            value_at(values, path[:-1])[path[-1]] = value
            with contextlib.suppress(ValidationError):
                different.append((before, FederationSettings.model_validate(values)))
    different = [(before, after) for before, after in different if after != before]
    assert different, "none of the values fits"
    counts = path[-1] not in ("control", "signatures") and path[-1:] + path[:1] != ("bulk", "members")
    assert all((after.id != before.id) == counts for before, after in different)


def value_at(values: Any, path: tuple[Any, ...]) -> Any:
    for key in path:
        values = values[key]
    return values


def test_a_changed_copy_has_its_own_id() -> None:
    before = federation()
    first = before.id
    after = before.model_copy(update={"seed": 7, "members": before.members[1:]})
    assert after.id != first
    assert after.names == ("bob", "cid")


def test_numbers_mean_the_same_however_they_are_written() -> None:
    assert federation(gossip={"deadline": 60}).id == federation(gossip={"deadline": 60.0}).id == federation().id


def test_the_canonical_form_is_plain_json_without_spaces() -> None:
    settings = federation(name="Süd", gossip=GossipSettings(deadline=1.5).model_dump())
    text = settings.canonical
    assert text.isascii()
    assert json.dumps(json.loads(text), sort_keys=True, separators=(",", ":")) == text
    assert len(settings.id) == 64
