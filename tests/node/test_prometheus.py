"""Figures for Prometheus: read over HTTP as Prometheus does."""

import copy
import socket
from collections.abc import Iterator
from typing import Any
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from flop_p2p.errors import NodeError
from flop_p2p.node.prometheus import NodeMetrics

SNAPSHOT: dict[str, Any] = {
    "name": "north",
    "federation": "lung",
    "federation_id": "ab" * 32,
    "revision": 2,
    "role": "site",
    "phase": "training",
    "round": 3,
    "rounds": 10,
    "finished": False,
    "started": 1.8e9,
    "train_loss": 0.25,
    "accuracy": 0.875,
    "balanced_accuracy": None,
    "validation_accuracy": 0.5,
    "absences": 2,
    "catch_ups": 1,
    "privacy": None,
    "masked_skips": 2,
    "neighbours": {
        "south": {
            "state": "connected",
            "round": 3,
            "latency": 0.002,
            "last_contact": 1.8e9,
            "clock_skew": -0.5,
            "sent_bytes": 100,
            "received_bytes": 200,
            "dropped_frames": 0,
            "absences": 0,
        },
        'we"st\n': {
            "state": "lost",
            "round": 1,
            "latency": None,
            "last_contact": None,
            "clock_skew": None,
            "sent_bytes": 1,
            "received_bytes": 2,
            "dropped_frames": 3,
            "absences": 2,
        },
    },
}


@pytest.fixture
def metrics() -> Iterator[NodeMetrics]:
    metrics = NodeMetrics("127.0.0.1:0")
    yield metrics
    metrics.close()


def samples(metrics: NodeMetrics) -> dict[tuple[str, str], float]:
    """What is served, by name without prefix and neighbour."""
    with urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=5) as answer:
        text = answer.read().decode()
    found = {}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            assert sample.name.startswith("flop_p2p_")
            found[sample.name.removeprefix("flop_p2p_"), sample.labels.get("neighbour", "")] = sample.value
    return found


def test_figures_are_served_by_name_and_neighbour(metrics: NodeMetrics) -> None:
    assert samples(metrics) == {}
    metrics.update(SNAPSHOT)
    assert samples(metrics) == {
        ("node_info", ""): 1,
        ("round", ""): 3,
        ("rounds", ""): 10,
        ("finished", ""): 0,
        ("started_seconds", ""): 1.8e9,
        ("train_loss", ""): 0.25,
        ("accuracy", ""): 0.875,
        ("validation_accuracy", ""): 0.5,
        ("neighbours", ""): 2,
        ("neighbours_connected", ""): 1,
        ("absences_total", ""): 2,
        ("catch_ups_total", ""): 1,
        ("masked_skips_total", ""): 2,
        ("neighbour_connected", "south"): 1,
        ("neighbour_connected", 'we"st\n'): 0,
        ("neighbour_round", "south"): 3,
        ("neighbour_round", 'we"st\n'): 1,
        ("latency_seconds", "south"): 0.002,
        ("last_contact_seconds", "south"): 1.8e9,
        ("clock_skew_seconds", "south"): -0.5,
        ("bytes_sent_total", "south"): 100,
        ("bytes_sent_total", 'we"st\n'): 1,
        ("bytes_received_total", "south"): 200,
        ("bytes_received_total", 'we"st\n'): 2,
        ("dropped_frames_total", "south"): 0,
        ("dropped_frames_total", 'we"st\n'): 3,
        ("neighbour_absences_total", "south"): 0,
        ("neighbour_absences_total", 'we"st\n'): 2,
    }


def test_the_newest_figures_are_served(metrics: NodeMetrics) -> None:
    metrics.update(SNAPSHOT)
    later = copy.deepcopy(SNAPSHOT) | {"round": 4}
    del later["neighbours"]["south"]
    metrics.update(later)
    found = samples(metrics)
    assert found["round", ""] == 4
    assert ("bytes_sent_total", "south") not in found


def test_two_nodes_in_one_process_do_not_mix(metrics: NodeMetrics) -> None:
    other = NodeMetrics("localhost:0")
    metrics.update(SNAPSHOT)
    other.close()
    assert samples(metrics)["round", ""] == 3


@pytest.mark.parametrize("address", ["127.0.0.1:{port}", "no.such.host.invalid:{port}", "127.0.0.1:99999"])
def test_an_address_that_cannot_be_used_is_named(address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = address.format(port=taken.getsockname()[1])
        with pytest.raises(NodeError, match=rf"metrics\.listen = {listen}: cannot be used \(.+\); choose another"):
            NodeMetrics(listen)


def test_a_closed_port_is_free_again() -> None:
    first = NodeMetrics("127.0.0.1:0")
    first.close()
    again = NodeMetrics(f"127.0.0.1:{first.port}")
    again.close()
    assert again.port == first.port


def test_the_privacy_budget(metrics: NodeMetrics) -> None:
    metrics.update({**SNAPSHOT, "privacy": {"epsilon": 3.5, "budget": None, "stopped": 4}})
    found = samples(metrics)
    assert found["epsilon", ""] == 3.5
    assert found["silent", ""] == 1
    assert ("epsilon_budget", "") not in found
    metrics.update({**SNAPSHOT, "privacy": {"epsilon": 0.0, "budget": 8.0, "stopped": None}})
    found = samples(metrics)
    assert (found["epsilon", ""], found["epsilon_budget", ""], found["silent", ""]) == (0.0, 8.0, 0)
    metrics.update({**SNAPSHOT, "privacy": None})
    assert not {name for name, _ in samples(metrics)} & {"epsilon", "epsilon_budget", "silent"}
