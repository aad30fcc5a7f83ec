"""An audit from settings to its results: a simulation, stopped before some rounds and attacked."""

import json
import platform
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w
import torch

import flop_p2p
from flop_p2p.audit.federation import Federation
from flop_p2p.audit.inversion_trials import Picture, Progress, invert_all
from flop_p2p.audit.label_trials import recover_all
from flop_p2p.audit.membership import audit_membership, check_membership
from flop_p2p.config import ExperimentSettings
from flop_p2p.data import FederatedData
from flop_p2p.errors import ConfigError, RunError
from flop_p2p.simulation import METHODS, load_data
from flop_p2p.writing import write_text, writing

Row = dict[str, Any]
Found = tuple[list[Row], list[Picture]]


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    results: the content of `audit.json`; ``complete`` is false until the last attack has ended.
    pictures: originals and reconstructions.
    """

    results: dict[str, Any]
    pictures: list[Picture]


def audit_leakage(
    settings: ExperimentSettings, directory: Path, progress: Progress, report: Callable[[Audit], None] | None = None
) -> Audit:
    """Attack the federation of ``settings`` as a neighbour could; writes `config.toml` and `audit.json`.

    What was found is written after each attack, so that an error in a later one does not lose it.

    Args:
        progress: told what is done, how much of it, and of how much.
        report: called with what was found so far whenever `audit.json` was written.

    Raises:
        ConfigError: the settings ask for a moment after the last round, or for no attack that goes with them.
        RunError: ``directory`` is not empty or cannot be written.
        FlopError: the settings cannot be simulated.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(settings.threads)
    try:
        moments = _moments(settings)
        data = load_data(settings)
        skipped = _not_possible(settings, data)
        if "membership" in settings.audit.attacks:
            check_membership(settings, data)
        with closing(Federation(settings, data)) as federation:
            _make(directory, settings)
            skipped |= _not_in_model(settings, federation)
            results = _nothing_yet(settings, data, federation, moments, skipped)
            attacks = _attack(settings, data, federation, results, progress)
            return _collect(results, attacks, directory, report)
    finally:
        torch.set_num_threads(threads)


def _nothing_yet(
    settings: ExperimentSettings,
    data: FederatedData,
    federation: Federation,
    moments: Sequence[int],
    skipped: dict[str, str],
) -> dict[str, Any]:
    """The content of `audit.json` before the first attack."""
    stops = moments if {"inversion", "labels"}.intersection(settings.audit.attacks).difference(skipped) else []
    return {
        "attacked": _attacked(settings, data, federation),
        "moments": list(stops),
        "skipped": skipped,
        "complete": False,
        "versions": {"flop-p2p": flop_p2p.__version__, "torch": torch.__version__, "python": platform.python_version()},
        "rows": [],
    }


def _attack(
    settings: ExperimentSettings,
    data: FederatedData,
    federation: Federation,
    results: dict[str, Any],
    progress: Progress,
) -> Iterator[Found]:
    """What each attack finds, as soon as it has ended."""
    asked = set(settings.audit.attacks).difference(results["skipped"])
    for moment in results["moments"]:
        for done in federation.advance(moment):
            progress(f"training up to round {moment}", done, moment)
        if "inversion" in asked and federation.pixels is not None:
            yield invert_all(federation, settings, federation.pixels, progress)
        if "labels" in asked:
            yield recover_all(federation, settings, progress), []
    if "membership" in asked:
        for rows in audit_membership(settings, progress, data):
            yield rows, []


def _collect(
    results: dict[str, Any], attacks: Iterator[Found], directory: Path, report: Callable[[Audit], None] | None
) -> Audit:
    """Write what was found after each attack, and at the end."""
    audit = Audit(results, [])

    def keep() -> None:
        write_text(directory / "audit.json", json.dumps(results, indent=1) + "\n")
        if report is not None:
            report(audit)

    for rows, pictures in attacks:
        results["rows"] += rows
        audit.pictures.extend(pictures)
        keep()
    results["complete"] = True
    keep()
    return audit


def _moments(settings: ExperimentSettings) -> list[int]:
    """The rounds before which bodies are attacked, ascending."""
    last = settings.training.rounds - 1
    moments = sorted(settings.audit.moments or {0, last})
    if moments[-1] > last:
        raise ConfigError(f"audit.moments: {moments[-1]} is after the last round, {last}; counting begins with 0")
    return moments


def _not_possible(settings: ExperimentSettings, data: FederatedData) -> dict[str, str]:
    """The attacks asked for that do not go with this method and data, and why.

    Raises:
        ConfigError: none is left.
    """
    reasons: dict[str, str] = {}
    if METHODS[settings.method].exchange == "none":
        reasons = dict.fromkeys(
            ("inversion", "labels"), f"{settings.method} exchanges nothing, so there is nothing to see"
        )
    if len(data.sites) < 2:
        reasons = dict.fromkeys(("inversion", "labels"), "there is one site alone, and nobody to attack it")
    if not data.dataset.is_image:
        reasons["inversion"] = "the samples are rows of a table; images are reconstructed"
    if data.dataset.task == "multilabel":
        reasons["labels"] = "a sample has several labels; recovery of one is tried"
    asked: tuple[str, ...] = settings.audit.attacks
    skipped = {attack: reasons[attack] for attack in asked if attack in reasons}
    if len(skipped) == len(asked):
        told = "; ".join(f"{attack}: {reason}" for attack, reason in skipped.items())
        raise ConfigError(f"audit.attacks: nothing is left to do. {told}")
    return skipped


def _not_in_model(settings: ExperimentSettings, federation: Federation) -> dict[str, str]:
    """Parts of an attack that do not go with this model, and why."""
    if "labels" not in settings.audit.attacks or federation.model.output_layer() is not None:
        return {}
    return {"iDLG": "the head has no linear output layer, from whose gradient it and the counts of batches tell labels"}


def _make(directory: Path, settings: ExperimentSettings) -> None:
    with writing(directory):
        if directory.exists() and any(directory.iterdir()):
            raise RunError(f"{directory}: not empty; choose another --out")
        directory.mkdir(parents=True, exist_ok=True)
    text = tomli_w.dumps(settings.model_dump(mode="json", exclude_none=True))
    write_text(directory / "config.toml", text)


def _attacked(settings: ExperimentSettings, data: FederatedData, federation: Federation) -> dict[str, Any]:
    """What was attacked, in figures."""
    weights = federation.before(0)
    numbers = {
        part: sum(weights[name].numel() for name in names)
        for part, names in (("body", federation.model.body), ("head", federation.model.head))
    }
    return {
        "data": data.dataset.name,
        "classes": list(data.dataset.class_names),
        "shape": list(federation.samples.sample_shape),
        "partition": settings.data.partition,
        "sites": {federation.name(row): len(federation.training(row)) for row in range(federation.sites)},
        "method": settings.method,
        "topology": settings.topology.name,
        "model": federation.model_name,
        "parameters": numbers,
        "privacy": settings.privacy.model_dump(include={"masking", "noise_multiplier", "clipping_norm"}),
        "batch_norm": "statistics of the batch, at site and attacker" if federation.model.has_batch_norm else None,
        "seed": settings.seed,
    }
