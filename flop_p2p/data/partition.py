"""Spreading a data set over hospitals."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flop_p2p.config import DataSettings
from flop_p2p.config.data import parse_partition
from flop_p2p.data.dataset import Array, Dataset, Indices, membership
from flop_p2p.data.subset import spread_classes
from flop_p2p.errors import ConfigError, DataError

EXTRA_PROBABILITY = 0.7
JOINED_SITE = "other"


def partition_sites(
    dataset: Dataset, settings: DataSettings, rng: np.random.Generator, site_names: Sequence[str] | None = None
) -> dict[str, Indices]:
    """The samples of each site, ascending by name and by index; every sample is at one site or left out.

    Small sites (fewer than ``min_site_images`` samples) are left out, or joined to one site ``other``. In the
    synthetic partitions a patient's samples all go to one site, and a patient counts for its most frequent class.

    Raises:
        ConfigError: the partition does not fit the data, or a site name is unknown.
        DataError: a site is empty, or all are left out.
    """
    kind, _ = parse_partition(settings.partition)
    if kind == "natural":
        sites = _natural(dataset)
    else:
        names = _synthetic_names(settings.sites, site_names)
        assigned = _synthetic(dataset, settings, rng)
        sites = {name: np.flatnonzero(assigned == number) for number, name in enumerate(names)}
    sites = _exclude(sites, settings.exclude_sites)
    sites = _drop_or_join(sites, settings)
    _refuse_empty(sites, settings)
    if kind == "natural" and site_names is not None and set(site_names) != set(sites):
        raise ConfigError(
            f"the data has the sites {', '.join(sorted(sites))}, but {', '.join(sorted(site_names))} are expected"
        )
    return dict(sorted(sites.items()))


def _natural(dataset: Dataset) -> dict[str, Indices]:
    if dataset.sites is None:
        raise ConfigError(
            f"--partition natural: {dataset.name} does not say which site a sample is from; it needs a site column "
            "(--site-column) or a train_site array, or another partition"
        )
    return {str(name): np.flatnonzero(dataset.sites == name) for name in np.unique(dataset.sites)}


def _synthetic_names(count: int, given: Sequence[str] | None) -> list[str]:
    if given is None:
        width = len(str(count))
        return [f"hospital-{number:0{width}d}" for number in range(1, count + 1)]
    if len(given) != count or len(set(given)) != count:
        raise ConfigError(f"--sites {count}, but there are {len(set(given))} different site names given")
    return sorted(given)


@dataclass(frozen=True)
class _Units:
    """What cannot be divided: patients, or else single samples."""

    of: Indices  # [samples], the unit of each sample
    sizes: Indices  # [units], samples of each
    classes: Indices  # [units], most frequent class of each; 0 for multilabel


def _units(dataset: Dataset) -> _Units:
    samples = len(dataset.labels)
    if dataset.patients is None:
        of = np.arange(samples)
    else:
        of = np.unique(dataset.patients, return_inverse=True)[1].reshape(-1)
    sizes = np.bincount(of)
    if dataset.task == "multilabel":
        return _Units(of, sizes, np.zeros(len(sizes), np.int64))
    counts = np.zeros((len(sizes), len(dataset.class_names)), np.int64)
    np.add.at(counts, (of, dataset.labels), 1)
    return _Units(of, sizes, counts.argmax(axis=1))


def _synthetic(dataset: Dataset, settings: DataSettings, rng: np.random.Generator) -> Indices:
    """The number of the site of each sample, ``[samples]``."""
    kind, parameter = parse_partition(settings.partition)
    if dataset.task == "multilabel" and kind in ("dirichlet", "shards"):
        raise ConfigError(
            f"--partition {settings.partition} deals out samples by their one class, and those of {dataset.name} "
            "have several labels; use iid, quantity:ALPHA or natural"
        )
    units = _units(dataset)
    if kind == "dirichlet":
        site = _dirichlet(units, settings.sites, parameter, rng)
    elif kind == "shards":
        site = _shards(units, settings.sites, int(parameter), len(dataset.class_names), rng)
    elif kind == "quantity":
        site = _quantity(units, settings.sites, parameter, rng)
    else:
        order = rng.permutation(len(units.sizes))
        site = _cut(units, order, np.full(settings.sites, 1 / settings.sites))
    return site[units.of]


def _cut(units: _Units, order: Indices, shares: Array) -> Indices:
    """Cut the row of units ``order`` into stretches with these shares of its samples; a site for each unit.

    A unit goes to the site into whose stretch its middle falls. Units outside ``order`` get 0.
    """
    sizes = units.sizes[order]
    middle = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
    site = np.zeros(len(units.sizes), np.int64)
    site[order] = np.searchsorted(np.cumsum(shares)[:-1], middle, side="right")
    return site


def _dirichlet(units: _Units, sites: int, alpha: float, rng: np.random.Generator) -> Indices:
    """For each class, shares over the sites from a symmetric Dirichlet(alpha); the shuffled class is cut by them.

    The label skew of Hsu et al. (2019), drawn class by class as Yurochkin et al. (2019) and Li et al. (2022) do,
    so that every sample is used. There are no second draws: what a small alpha gives is kept, empty sites too.
    """
    site = np.zeros(len(units.sizes), np.int64)
    for label in np.unique(units.classes):
        order = rng.permutation(np.flatnonzero(units.classes == label))
        shares = rng.dirichlet(np.full(sites, alpha))
        site[order] = _cut(units, order, shares)[order]
    return site


def _quantity(units: _Units, sites: int, alpha: float, rng: np.random.Generator) -> Indices:
    """Sizes from a symmetric Dirichlet(alpha), each site with the class mix of the whole."""
    order = spread_classes(units.classes, rng.permutation(len(units.sizes)), rng)
    return _cut(units, order, rng.dirichlet(np.full(sites, alpha)))


def _shards(units: _Units, sites: int, preferred: int, classes: int, rng: np.random.Generator) -> Indices:
    """Each site prefers some classes, as in FLOP (Yang et al. 2021), which has one preferred class a site.

    The classes are shuffled once and dealt round robin, ``preferred`` to each site, so that each class has
    nearly the same number of sites that prefer it. A sample then goes with extra probability 0.7 to one of the
    sites that prefer its class, and otherwise, as when no site prefers it, to any site with equal chances.
    """
    if preferred > classes:
        raise ConfigError(f"--partition shards:{preferred}: the data has only {classes} classes")
    deck = rng.permutation(classes)
    prefers = np.zeros((sites, classes), bool)
    for number in range(sites * preferred):
        prefers[number // preferred, deck[number % classes]] = True
    count = len(units.sizes)
    site = rng.integers(sites, size=count)
    extra = rng.random(count) < EXTRA_PROBABILITY
    for label in range(classes):
        chosen = np.flatnonzero(extra & (units.classes == label))
        fans = np.flatnonzero(prefers[:, label])
        if len(fans):
            site[chosen] = rng.choice(fans, size=len(chosen))
    return site


def _exclude(sites: dict[str, Indices], excluded: Sequence[str]) -> dict[str, Indices]:
    for name in excluded:
        if name not in sites:
            raise ConfigError(f"--exclude-site {name}: there is no such site; there are {', '.join(sorted(sites))}")
    return {name: indices for name, indices in sites.items() if name not in excluded}


def _drop_or_join(sites: dict[str, Indices], settings: DataSettings) -> dict[str, Indices]:
    """Small sites left out, or joined to ``other`` (and to a site of that name if the data has one)."""
    small = [name for name, indices in sites.items() if len(indices) < settings.min_site_images]
    kept = {name: indices for name, indices in sites.items() if name not in small}
    members = [sites[name] for name in small if len(sites[name])]
    if members and settings.small_sites == "join":
        if JOINED_SITE in kept:
            members.append(kept[JOINED_SITE])
        kept[JOINED_SITE] = np.sort(np.concatenate(members))
    if not kept:
        largest = max((len(indices) for indices in sites.values()), default=0)
        raise DataError(
            f"no site is left: the largest has {largest} samples, below --min-site-images {settings.min_site_images}"
            if sites
            else "no site is left: --exclude-site names them all"
        )
    return kept


def _refuse_empty(sites: dict[str, Indices], settings: DataSettings) -> None:
    empty = sorted(name for name, indices in sites.items() if len(indices) == 0)
    if empty:
        shown = ", ".join(empty[:5]) + (f" and {len(empty) - 5} more" if len(empty) > 5 else "")
        kind, parameter = parse_partition(settings.partition)
        gentler = f"a larger alpha than {parameter:g}, " if kind in ("dirichlet", "quantity") else ""
        raise DataError(
            f"--partition {settings.partition} over {settings.sites} sites leaves no sample for {shown}; use {gentler}"
            "another --seed, fewer --sites, or --min-site-images 1 to leave empty sites out"
        )


def class_counts(dataset: Dataset, indices: Indices) -> Indices:
    """How many of these samples have each class, int64 ``[classes]``."""
    counts: Indices = membership(dataset.labels[indices], len(dataset.class_names)).sum(axis=0, dtype=np.int64)
    return counts
