"""Figures of the running node for Prometheus, on an address of the site's choice; better a loopback one."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from flop_p2p.errors import NodeError

Snapshot = Mapping[str, Any]  # as described in `node.status`
Reader = Callable[[Snapshot], float | None]

GAUGES: dict[str, tuple[str, Reader]] = {
    "round": ("Round under way, counted from 1", lambda s: s["round"]),
    "rounds": ("Rounds of the whole run", lambda s: s["rounds"]),
    "finished": ("1 when all rounds are done", lambda s: s["finished"]),
    "started_seconds": ("When the node started, since 1970", lambda s: s["started"]),
    "train_loss": ("Mean training loss of the last round", lambda s: s["train_loss"]),
    "accuracy": ("Accuracy on the site's own test split", lambda s: s["accuracy"]),
    "balanced_accuracy": ("Balanced accuracy on the site's own test split", lambda s: s["balanced_accuracy"]),
    "validation_accuracy": ("Accuracy on the site's own validation split", lambda s: s["validation_accuracy"]),
    "epsilon": ("Privacy budget spent so far", lambda s: s["privacy"] and s["privacy"]["epsilon"]),
    "epsilon_budget": ("Privacy budget of the site", lambda s: s["privacy"] and s["privacy"]["budget"]),
    "silent": ("1 when the privacy budget is spent and the site only receives", lambda s: _is_silent(s["privacy"])),
    "neighbours": ("Neighbours that the node knows", lambda s: len(s["neighbours"])),
    "neighbours_connected": (
        "Neighbours that are connected",
        lambda s: sum(each["state"] == "connected" for each in s["neighbours"].values()),
    ),
}
COUNTERS: dict[str, tuple[str, Reader]] = {
    "absences": ("Bodies that did not come in time", lambda s: s["absences"]),
    "catch_ups": ("Times that the node fell behind and took over its neighbours' mean", lambda s: s["catch_ups"]),
    "masked_skips": ("Rounds without a sum of masked bodies", lambda s: s["masked_skips"]),
}
NEIGHBOUR_GAUGES: dict[str, tuple[str, Reader]] = {
    "neighbour_connected": ("1 while the neighbour is connected", lambda n: n["state"] == "connected"),
    "neighbour_round": ("Round that the neighbour last told", lambda n: n["round"]),
    "latency_seconds": ("Time of a heartbeat to the neighbour and back", lambda n: n["latency"]),
    "last_contact_seconds": ("When the neighbour was last heard, since 1970", lambda n: n["last_contact"]),
    "clock_skew_seconds": ("How far the neighbour's clock is ahead", lambda n: n["clock_skew"]),
}
NEIGHBOUR_COUNTERS: dict[str, tuple[str, Reader]] = {
    "bytes_sent": ("Bytes sent to the neighbour since the start", lambda n: n["sent_bytes"]),
    "bytes_received": ("Bytes received from the neighbour since the start", lambda n: n["received_bytes"]),
    "dropped_frames": ("Frames from the neighbour that were not accepted", lambda n: n["dropped_frames"]),
    "neighbour_absences": ("Bodies of the neighbour that did not come in time", lambda n: n["absences"]),
}


def _is_silent(privacy: Snapshot | None) -> bool | None:
    return None if privacy is None else privacy["stopped"] is not None


class NodeMetrics(Collector):
    """Serves the latest snapshot at ``http://LISTEN/metrics``, with a registry of its own.

    Args:
        listen: ``host:port``.

    Raises:
        NodeError: the address cannot be used.
    """

    def __init__(self, listen: str) -> None:
        self._snapshot: Snapshot | None = None
        registry = CollectorRegistry()
        registry.register(self)
        host, _, port = listen.rpartition(":")
        try:
            self._server, self._thread = start_http_server(int(port), host.strip("[]"), registry)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise NodeError(f"metrics.listen = {listen}: cannot be used ({reason}); choose another") from error
        self.port: int = self._server.server_port

    def update(self, snapshot: Snapshot) -> None:
        """Serve these figures from now on."""
        self._snapshot = snapshot

    def close(self) -> None:
        """Serve no more."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def collect(self) -> Iterator[Metric]:
        """The figures as Prometheus reads them; those not known yet are left out."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        keys = ("name", "federation", "federation_id", "revision", "role", "phase")
        yield InfoMetricFamily("flop_p2p_node", "The node", {key: str(snapshot[key]) for key in keys})
        for family, metrics in ((GaugeMetricFamily, GAUGES), (CounterMetricFamily, COUNTERS)):
            for name, (text, read) in metrics.items():
                yield _metric(family(f"flop_p2p_{name}", text, labels=()), {"": read(snapshot)})
        neighbours: Mapping[str, Snapshot] = snapshot["neighbours"]
        for family, metrics in ((GaugeMetricFamily, NEIGHBOUR_GAUGES), (CounterMetricFamily, NEIGHBOUR_COUNTERS)):
            for name, (text, read) in metrics.items():
                values = {neighbour: read(figures) for neighbour, figures in neighbours.items()}
                yield _metric(family(f"flop_p2p_{name}", text, labels=("neighbour",)), values)


def _metric(family: GaugeMetricFamily | CounterMetricFamily, values: Mapping[str, float | None]) -> Metric:
    for label, value in values.items():
        if value is not None:
            family.add_metric([label] if label else [], value)
    return family
