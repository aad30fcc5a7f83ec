"""From what the daemons of a local federation left behind to the files of a run, the same as of a simulation."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file

from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData
from flop_p2p.errors import NodeError
from flop_p2p.local.prepare import LocalSite
from flop_p2p.simulation.engine import Simulation
from flop_p2p.simulation.summary import summarize
from flop_p2p.writing import write_text

Line = dict[str, Any]


def collect(
    settings: ExperimentSettings, data: FederatedData, sites: Sequence[LocalSite], directory: Path, seconds: float
) -> dict[str, Any]:
    """Gather the daemons' figures into `metrics.jsonl` and return the content of `summary.json`.

    Figures are those that the daemons measured; the pooled test split, which no daemon has, is gone through here
    with the models that they stored. Bytes are all that the daemons sent, headers and heartbeats included.

    Args:
        seconds: that the daemons took together, from the first start to the last end.

    Raises:
        NodeError: a daemon left no summary, figures or model.
    """
    summaries = {site.name: _read_summary(site) for site in sites}
    trained = [site for site in sites if site.role == "site"]
    simulation = Simulation(settings, data, data.sites)
    for row, site in enumerate(trained):
        simulation.work.model(row).load_state_dict(_read_model(site))
    simulation.progress.round = settings.training.rounds
    lines = _merge([_read_lines(site) for site in trained])
    write_text(directory / "metrics.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    pooled = simulation.evaluate_pooled()
    summary = summarize(simulation, lines, pooled, {})
    traffic = {name: each["bytes"] for name, each in summaries.items()}
    times = {
        name: sum(each["seconds"][name] for each in summaries.values()) for name in ("training", "mixing", "evaluation")
    }
    return summary | {
        "privacy": _privacy({site.name: summaries[site.name]["privacy"] for site in trained}),
        "bytes": {
            "total": sum(each["sent"] for each in traffic.values()),
            "busiest_site": max(each["sent"] + each["received"] for each in traffic.values()),
        },
        "seconds": {"total": seconds, **times},
        "whole": all(each["whole"] for each in summaries.values()),
        "nodes": {
            name: {key: each[key] for key in ("completed", "whole", "absences", "skipped_rounds", "catch_ups", "bytes")}
            for name, each in summaries.items()
        },
    }


def _privacy(sites: Mapping[str, dict[str, Any] | None]) -> dict[str, Any] | None:
    """What the daemons spent, as a simulation tells it; None without differential privacy."""
    own = ("epsilon", "steps", "sampling_rate", "stopped")
    told = {name: privacy for name, privacy in sites.items() if privacy is not None}
    if not told:
        return None
    common = {key: value for key, value in next(iter(told.values())).items() if key not in own}
    return {**common, "sites": {name: {key: privacy[key] for key in own} for name, privacy in told.items()}}


def _read_summary(site: LocalSite) -> dict[str, Any]:
    path = site.state / "summary.json"
    try:
        summary: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError(f"{path}: cannot be read ({error}); see {site.log}") from error
    return summary


def _read_model(site: LocalSite) -> dict[str, Any]:
    path = site.state / "model.safetensors"
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise NodeError(f"{path}: cannot be read ({error}); see {site.log}") from error


def _read_lines(site: LocalSite) -> list[Line]:
    path = site.state / "metrics.jsonl"
    try:
        return [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise NodeError(f"{path}: cannot be read ({error}); see {site.log}") from error


def _merge(per_site: Sequence[list[Line]]) -> list[Line]:
    """The lines of all sites by round, with the bytes that all sites had sent by then (None: nobody measures it)."""
    lines = sorted((line for lines in per_site for line in lines), key=lambda line: (line["round"], line["site"]))
    sent: dict[str, int] = {}
    merged = []
    for line in lines:
        sent[line["site"]] = line["bytes_sent"]
        merged.append({**line, "consensus_distance": None, "bytes_total": sum(sent.values())})
    return merged
