"""From settings to the data of every site: the one entry for engines and commands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from flop_p2p.config import DataSettings
from flop_p2p.data.dataset import Array, Dataset, Indices
from flop_p2p.data.partition import class_counts, partition_sites
from flop_p2p.data.sources import read_source
from flop_p2p.data.splits import split_site
from flop_p2p.errors import DataError
from flop_p2p.seeding import derive

Part = Literal["train", "validation", "test"]
BLOCK = 1024


@dataclass(frozen=True)
class SiteSplit:
    """The samples of one site: int64 indices into the data set, each ascending; validation may be empty."""

    name: str
    train: Indices
    validation: Indices
    test: Indices


@dataclass(frozen=True)
class FederatedData:
    """A data set spread over sites.

    ``mean`` and ``std`` are float32 ``[channels]`` for images, in units of 0 to 1 (bytes divided by 255), or
    ``[features]`` for tables, over the union of the sites' training samples; a standard deviation of 0 is given as 1.
    """

    dataset: Dataset
    sites: tuple[SiteSplit, ...]
    mean: Array
    std: Array

    @property
    def pooled_test(self) -> Indices:
        """The test samples of all sites, ascending."""
        return np.sort(np.concatenate([site.test for site in self.sites]))

    def class_counts(self, part: Part = "train") -> Indices:
        """How many samples of each class each site has in one split, int64 ``[sites, classes]``."""
        return np.stack([class_counts(self.dataset, getattr(site, part)) for site in self.sites])


def load_federated(settings: DataSettings, seed: int, site_names: Sequence[str] | None = None) -> FederatedData:
    """Read the source, spread it over the sites and split each site; the same seed gives the same result.

    ``site_names`` names the sites of a synthetic partition, and must be the sites of a natural one.

    Raises:
        ConfigError: the settings do not fit the data.
        DataError: the data cannot be read, or a site ends without training or test samples.
    """
    dataset = read_source(settings, derive(seed, "limit"))
    if dataset.task != "multilabel" and len(dataset.class_names) < 2:
        where = settings.path or dataset.name
        raise DataError(f"{where}: has only the class {dataset.class_names[0]}; at least two are needed")
    indices = partition_sites(dataset, settings, derive(seed, "partition"), site_names)
    sites = split_sites(dataset, indices, settings.split, seed)
    train = np.sort(np.concatenate([site.train for site in sites]))
    mean, std = normalization(dataset, train)
    return FederatedData(dataset, sites, mean, std)


def split_sites(
    dataset: Dataset, indices: Mapping[str, Indices], fractions: tuple[float, float, float], seed: int
) -> tuple[SiteSplit, ...]:
    """The samples at ``indices`` of each site split into training, validation and test samples.

    A patient seen at two sites is in the same split at both.

    Raises:
        DataError: a site ends without training or test samples.
    """
    patients: dict[str, int] = {}
    sites = []
    for name, own in indices.items():
        site = SiteSplit(name, *split_site(dataset, own, fractions, derive(seed, "split", name), patients))
        _check_site(site, len(own), dataset.patients is not None)
        sites.append(site)
    return tuple(sites)


def _check_site(site: SiteSplit, samples: int, by_patient: bool) -> None:
    for part, found in (("training", site.train), ("test", site.test)):
        if len(found) == 0:
            counted = f"{samples} samples{' of too few patients' if by_patient else ''}"
            raise DataError(
                f"site {site.name} ends without {part} samples, it has {counted}; "
                f"leave it out with --exclude-site or --min-site-images {samples + 1}"
            )


def normalization(dataset: Dataset, indices: Indices) -> tuple[Array, Array]:
    """Mean and standard deviation of these samples, as :class:`FederatedData` keeps them."""
    if dataset.is_image:
        channels = dataset.inputs.shape[1]
        histogram = np.zeros((channels, 256), np.int64)
        for start in range(0, len(indices), BLOCK):
            block = dataset.inputs[indices[start : start + BLOCK]]
            for channel in range(channels):
                histogram[channel] += np.bincount(block[:, channel].reshape(-1), minlength=256)
        weights = histogram / histogram.sum(axis=1, keepdims=True)
        values = np.arange(256) / 255
        mean = weights @ values
        std = np.sqrt((weights * (values - mean[:, None]) ** 2).sum(axis=1))
    else:
        table = dataset.inputs[indices].astype(np.float64)
        mean, std = table.mean(axis=0), table.std(axis=0)
    std = std.astype(np.float32)
    std[std == 0] = 1
    return mean.astype(np.float32), std
