"""Flags that commands share: each one overrides one key of `experiment.toml` or of `federation.toml`.

Type, help and default come from the settings themselves, so that a flag cannot drift from its key.
"""

import functools
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from rich.markup import escape

from flop_p2p.config import PRESETS, ExperimentSettings, Settings, load_experiment

SHARED_FLAGS = {
    "--data": "data.source",
    "--data-path": "data.path",
    "--partition": "data.partition",
    "--sites": "data.sites",
    "--min-site-images": "data.min_site_images",
    "--small-sites": "data.small_sites",
    "--exclude-site": "data.exclude_sites",
    "--split": "data.split",
    "--limit-images": "data.limit_images",
    "--image-size": "data.image_size",
    "--channels": "data.channels",
    "--path-column": "data.path_column",
    "--label-column": "data.label_column",
    "--patient-column": "data.patient_column",
    "--site-column": "data.site_column",
    "--model": "model.name",
    "--private": "model.private",
    "--batch-norm": "model.batch_norm",
    "--weights": "model.weights",
    "--mixing-weights": "topology.weights",
    "--weighting": "topology.weighting",
    "--compression": "gossip.compression",
    "--top-k": "gossip.top_k",
    "--consensus-step": "gossip.consensus_step",
    "--masking": "privacy.masking",
    "--noise-multiplier": "privacy.noise_multiplier",
    "--clipping-norm": "privacy.clipping_norm",
    "--epsilon": "privacy.epsilon",
    "--delta": "privacy.delta",
    "--accountant": "privacy.accountant",
    "--privacy-unit": "privacy.unit",
    "--rounds": "training.rounds",
    "--local-epochs": "training.local_epochs",
    "--local-steps": "training.local_steps",
    "--batch-size": "training.batch_size",
    "--optimizer": "training.optimizer",
    "--lr": "training.lr",
    "--momentum": "training.momentum",
    "--weight-decay": "training.weight_decay",
    "--schedule": "training.schedule",
    "--optimizer-state": "training.optimizer_state",
    "--head-loss": "training.head_loss",
    "--class-weights": "training.class_weights",
    "--sampling": "training.sampling",
    "--augment": "training.augmentation",
    "--early-stopping": "training.early_stopping",
    "--participation": "training.participation",
    "--late-sites": "late_sites",
    "--evaluate-every": "evaluate_every",
    "--device": "device",
    "--threads": "threads",
    "--sites-at-once": "sites_at_once",
    "--seed": "seed",
}
GOSSIP_FLAGS = {
    "--deadline": "gossip.deadline",
    "--staleness": "gossip.staleness",
    "--start-timeout": "gossip.start_timeout",
    "--min-neighbours": "gossip.min_neighbours",
    "--isolated": "gossip.isolated",
    "--bulk": "gossip.bulk",
    "--renew-keys-every": "gossip.renew_keys_every",
    "--heartbeat": "gossip.heartbeat",
    "--lost-after": "gossip.lost_after",
}
WORKERS = "processes that train and evaluate; 0 takes one a core; figures do not depend on it"
BODIES_IN = "folder for a file that holds the bodies instead of memory, for more sites than memory has room for"
DATA_FLAGS = {flag: key for flag, key in SHARED_FLAGS.items() if key.startswith("data.") or key == "seed"}

Command = Callable[..., None]


def experiment_options(flags: dict[str, str]) -> Callable[[Command], Command]:
    """Give a command ``settings: ExperimentSettings``, read from a file, ``--preset`` and ``flags``.

    ``flags`` maps a flag to the dotted key that it overrides. The command keeps its other parameters.

    Raises (when the command runs):
        ConfigError: an unknown preset or key, or a value out of range.
    """
    file = [
        _parameter("experiment", Path, typer.Argument(help="experiment.toml with settings")),
        _parameter("preset", str, typer.Option("--preset", help=f"start from {' or '.join(PRESETS)}")),
    ]

    def decorate(command: Command) -> Command:
        def run(
            overrides: dict[str, Any], experiment: Path | None = None, preset: str | None = None, **values: Any
        ) -> None:
            command(settings=load_experiment(experiment, preset, overrides), **values)

        own = [p for name, p in inspect.signature(command).parameters.items() if name != "settings"]
        return _command(run, command, [*file, *_flags(ExperimentSettings, flags), *own], flags)

    return decorate


def setting_options(model: type[Settings], flags: dict[str, str]) -> Callable[[Command], Command]:
    """Give a command ``overrides``: what the user gave of ``flags``, by the dotted keys of ``model`` that they name.

    The command keeps its other parameters, in front of the flags.
    """

    def decorate(command: Command) -> Command:
        own = [p for name, p in inspect.signature(command).parameters.items() if name != "overrides"]
        return _command(command, command, [*own, *_flags(model, flags)], flags)

    return decorate


def _command(call: Command, named: Command, parameters: Sequence[inspect.Parameter], flags: dict[str, str]) -> Command:
    """A command with these parameters, named and described as ``named``; it hands the given flags on as overrides."""

    @functools.wraps(named)
    def run(**values: Any) -> None:
        given = {key: values.pop(_name(flag), None) for flag, key in flags.items()}
        call(overrides={key: value for key, value in given.items() if value is not None and value != []}, **values)

    keyword_only = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in parameters]
    run.__signature__ = inspect.Signature(keyword_only)  # type: ignore[attr-defined]
    run.__annotations__ = {p.name: p.annotation for p in keyword_only}
    return run


def _flags(model: type[Settings], flags: dict[str, str]) -> list[inspect.Parameter]:
    return [_parameter(_name(flag), *_option(model, flag, key)) for flag, key in flags.items()]


def _name(flag: str) -> str:
    return flag.removeprefix("--").replace("-", "_")


def _parameter(name: str, kind: Any, info: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=Annotated[kind | None, info]
    )


def _option(model: type[Settings], flag: str, key: str) -> tuple[Any, Any]:
    """Type and typer option of a settings field. Text is validated by the settings themselves."""
    field = _field(model, key)
    options = [kind for kind in get_args(field.annotation) if kind is not type(None)]
    kind = options[0] if type(None) in get_args(field.annotation) else field.annotation
    default = None if field.is_required() else field.default
    if get_origin(kind) is tuple:  # free text may hold commas and takes a flag each; other values are split at them
        kind = list[str] if default == () and get_args(kind)[0] is str else str
        default = None if default is None else ",".join(map(str, default))
    elif get_origin(kind) is Literal:
        kind = type(get_args(kind)[0])
    default_text = f" [dim]\\[default: {default}][/dim]" if default not in (None, "") else ""
    return kind, typer.Option(flag, help=f"{escape(field.description or '')}{default_text}")


def _field(model: type[BaseModel], key: str) -> FieldInfo:
    *sections, name = key.split(".")
    for section in sections:
        model = model.model_fields[section].annotation  # type: ignore[assignment]
    return model.model_fields[name]
