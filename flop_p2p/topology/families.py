"""The families of topologies by name: their parameters, and the numbers of sites at which they exist."""

import difflib
import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

from flop_p2p.errors import TopologyError


@dataclass(frozen=True)
class Parameter:
    """A number after a colon in the name of a topology, such as the 4 of ``random-regular:4``.

    A whole ``default`` allows whole numbers only.
    """

    symbol: str
    meaning: str
    default: float
    lowest: int
    highest: float = math.inf
    even: bool = False

    @property
    def requirement(self) -> str:
        """What the parameter must be, in words."""
        if not isinstance(self.default, int):
            return f"a number from {self.lowest} to {self.highest:g}"
        return f"{'an even' if self.even else 'a whole'} number, at least {self.lowest}"

    def parse(self, text: str) -> float | None:
        """The value that ``text`` stands for, or None if it is out of range or no number."""
        try:
            value: float = int(text) if isinstance(self.default, int) else float(text)
        except ValueError:
            return None
        fits = self.lowest <= value <= self.highest and not (self.even and value % 2)
        return value if fits else None


@dataclass(frozen=True)
class Family:
    """A family of topologies.

    ``exists`` takes the number of sites (two or more) and the parameters; ``sizes`` says the same in words.
    """

    description: str
    parameters: tuple[Parameter, ...] = ()
    sizes: str = "any number of sites"
    exists: Callable[..., bool] = lambda _sites, *_parameters: True


def sides(sites: int) -> tuple[int, int]:
    """Rows and columns of the most square rectangle of so many sites, rows <= columns."""
    rows = next(rows for rows in range(math.isqrt(sites), 0, -1) if sites % rows == 0)
    return rows, sites // rows


NEIGHBOURS = "neighbours of a site"

FAMILIES: dict[str, Family] = {
    "path": Family("sites in a line, each linked to the next"),
    "ring": Family("sites in a circle, each linked to the next; of two sites, their one link"),
    "star": Family("the first site linked to all others"),
    "full": Family("full mesh: every site linked to every other"),
    "grid": Family(
        "rectangle as square as possible, each site linked to those above, below, left and right",
        sizes="rows x columns, both at least 2",
        exists=lambda sites: sides(sites)[0] >= 2,
    ),
    "torus": Family(
        "grid whose opposite borders are linked too",
        sizes="rows x columns, both at least 3",
        exists=lambda sites: sides(sites)[0] >= 3,
    ),
    "random-regular": Family(
        "random graph in which every site has K neighbours, drawn once by the seed",
        (Parameter("K", NEIGHBOURS, 4, lowest=2),),
        "more than K sites, and an even number of them for odd K",
        lambda sites, k: sites > k and sites * k % 2 == 0,
    ),
    "small-world": Family(
        "ring of K nearest neighbours whose links are rewired at random with probability P",
        (
            Parameter("K", NEIGHBOURS, 4, lowest=2, even=True),
            Parameter("P", "probability to rewire a link", 0.2, lowest=0, highest=1),
        ),
        "more than K sites",
        lambda sites, k, _: sites > k,
    ),
    "hypercube": Family(
        "sites numbered in binary, linked if one digit differs",
        sizes="a power of two",
        exists=lambda sites: sites & (sites - 1) == 0,
    ),
    "exponential": Family("directed: each site receives from those 1, 2, 4, 8 ... places further"),
    "one-peer-exponential": Family("the exponential graph one step at a time: 1 place further, then 2, then 4 ..."),
    "base": Family(
        "Base-(K+1) graph: exact mean of any number of sites in few rounds, at most K neighbours in a round",
        (Parameter("K", "most neighbours in a round", 1, lowest=1),),
    ),
    "epidemic": Family(
        "in each round every site sends to S random others",
        (Parameter("S", "sites that a site sends to", 2, lowest=1),),
        "more than S sites",
        lambda sites, s: sites > s,
    ),
}


@dataclass(frozen=True)
class Spec:
    """A family with the values of its parameters; ``str`` gives its full name, such as ``base:2``."""

    family: str
    parameters: tuple[float, ...] = ()

    def __str__(self) -> str:
        return ":".join([self.family, *(f"{value:g}" for value in self.parameters)])


def usage(name: str) -> str:
    """How a family is written: ``small-world:K:P``."""
    return ":".join([name, *(parameter.symbol for parameter in FAMILIES[name].parameters)])


def parse_spec(text: str) -> Spec:
    """The family and parameters that ``text`` names; parameters left out take their defaults.

    Raises:
        TopologyError: an unknown family, too many parameters, or one that is out of range.
    """
    name, *values = text.split(":")
    if name not in FAMILIES:
        close = difflib.get_close_matches(name, FAMILIES, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        known = ", ".join(usage(known) for known in FAMILIES)
        raise TopologyError(f"topology {text!r}: no such family; {hint}There are {known}, and files ending in .toml")
    expected = FAMILIES[name].parameters
    if len(values) > len(expected):
        raise TopologyError(f"topology {text!r}: too many parameters, write {usage(name)}")
    parameters = []
    for parameter, value in itertools.zip_longest(expected, values):
        parsed = parameter.default if value is None else parameter.parse(value)
        if parsed is None:
            raise TopologyError(
                f"topology {text!r}: {parameter.symbol} ({parameter.meaning}) must be {parameter.requirement}, "
                f"not {value!r}"
            )
        parameters.append(parsed)
    return Spec(name, tuple(parameters))


def exists(spec: Spec, sites: int) -> bool:
    """Whether a family exists at so many sites (two or more)."""
    return FAMILIES[spec.family].exists(sites, *spec.parameters)


def check_size(spec: Spec, sites: int) -> None:
    """Refuse a number of sites (two or more) at which a family does not exist.

    Raises:
        TopologyError: one line with the nearest numbers of sites that work.
    """
    if exists(spec, sites):
        return
    below = (size for size in range(sites - 1, 1, -1) if exists(spec, size))
    above = (size for size in itertools.count(sites + 1) if exists(spec, size))
    nearest = [*itertools.islice(below, 1), next(above)]
    raise TopologyError(
        f"topology {str(spec)!r} does not exist for {sites} sites: it needs {FAMILIES[spec.family].sizes}; "
        f"nearest {'size' if len(nearest) == 1 else 'sizes'}: {' and '.join(map(str, nearest))}"
    )
