"""The data of one hospital's own node: read, checked against what the federation agreed on, and split for good."""

from dataclasses import replace
from pathlib import Path

import numpy as np

from flop_p2p.config import DataSettings, validate
from flop_p2p.config.federation import SampleSettings
from flop_p2p.config.site import SiteDataSettings
from flop_p2p.data.dataset import Array, Dataset
from flop_p2p.data.load import FederatedData, SiteSplit, normalization, split_sites
from flop_p2p.data.site_file import export_site, read_site_file
from flop_p2p.data.sources import read_source
from flop_p2p.errors import ConfigError, DataError
from flop_p2p.seeding import derive

__all__ = ["export_site", "load_site_data", "sample_settings"]

BUNDLED = ("digits", "breast-cancer")


def load_site_data(settings: SiteDataSettings, samples: SampleSettings, name: str, seed: int) -> FederatedData:
    """The data of the site ``name`` alone, with the classes and the normalization of the federation.

    Images in files are brought to the size and channels of the federation; all other data must have its shape.
    The same samples in the same order are split as in a simulation with this seed.

    Raises:
        ConfigError: the settings do not go together.
        DataError: the data cannot be read, or is not what the federation agreed on.
    """
    path = settings.path
    if path is None and settings.source not in BUNDLED:
        raise ConfigError(f"site {name}: data.path is missing; data.source = {settings.source!r} needs it")
    if path is not None and settings.source == "safetensors":
        dataset, site = _read_file(path, settings, samples)
        site = replace(site, name=name)
    else:
        read = read_source(_as_experiment(settings, samples, name), derive(seed, "limit"))
        dataset = _in_agreed_form(read, samples, path or settings.source)
        site = split_sites(dataset, {name: np.arange(len(dataset.labels))}, settings.split, seed)[0]
    mean, std = normalization(dataset, site.train)
    if samples.mean is not None and samples.std is not None:
        mean, std = np.asarray(samples.mean, np.float32), np.asarray(samples.std, np.float32)
    return FederatedData(dataset, (site,), mean, std)


def sample_settings(data: FederatedData) -> SampleSettings:
    """What the sites of a federation with this data agree on: `federation.toml`'s ``[samples]``."""
    return SampleSettings(
        task=data.dataset.task,
        class_names=data.dataset.class_names,
        shape=data.dataset.inputs.shape[1:],
        mean=tuple(data.mean.tolist()),
        std=tuple(data.std.tolist()),
    )


def _in_agreed_form(dataset: Dataset, samples: SampleSettings, where: Path | str) -> Dataset:
    """``dataset`` with the task and the classes of the federation, in its order; ``where`` names it in errors.

    Raises:
        DataError: shape or kind of labels are others, or a class is none of the federation's.
    """
    own, agreed = dataset.inputs.shape[1:], samples.shape
    if own != agreed:
        raise DataError(f"{where}: samples have shape {_shown(own)}, those of the federation {_shown(agreed)}")
    multilabel = samples.task == "multilabel"
    if (dataset.task == "multilabel") != multilabel:
        raise DataError(f"{where}: labels are {dataset.task}, those of the federation {samples.task}")
    place = {name: number for number, name in enumerate(samples.class_names)}
    for name in dataset.class_names:
        if name not in place:
            raise DataError(f"{where}: class {name!r} is not among those of the federation: {', '.join(place)}")
    places = np.asarray([place[name] for name in dataset.class_names], np.int64)
    labels: Array
    if multilabel:
        labels = np.zeros((len(dataset.labels), len(place)), np.float32)
        labels[:, places] = dataset.labels
    else:
        labels = places[dataset.labels]
    return replace(dataset, labels=labels, class_names=samples.class_names, task=samples.task)


def _read_file(path: Path, settings: SiteDataSettings, samples: SampleSettings) -> tuple[Dataset, SiteSplit]:
    """A file of `export_site`, which brings its split."""
    for key in ("split", "limit_images"):
        if getattr(settings, key) != SiteDataSettings.model_fields[key].default:
            raise ConfigError(f"data.{key}: {path} brings its own split; leave {key} out")
    dataset, site = read_site_file(path)
    for part, found in (("training", site.train), ("test", site.test)):
        if not len(found):
            raise DataError(f"{path}: there are no {part} samples")
    return _in_agreed_form(dataset, samples, path), site


def _as_experiment(settings: SiteDataSettings, samples: SampleSettings, name: str) -> DataSettings:
    """The same source as the readers of simulations know it."""
    values = settings.model_dump()
    if settings.source in ("folder", "image-csv") and len(samples.shape) == 3:
        channels, height, width = samples.shape
        values |= {"image_size": height if height == width else None, "channels": channels}
    return validate(DataSettings, values, f"site {name}: data")


def _shown(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))
