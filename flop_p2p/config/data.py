"""Settings of the data and of its partition over sites."""

import math
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import Field, field_validator

from flop_p2p.config.base import Settings

Source = Literal["medmnist", "idx", "folder", "image-csv", "csv", "digits", "breast-cancer"]
PartitionKind = Literal["iid", "dirichlet", "shards", "quantity", "natural"]


class Partition(NamedTuple):
    """A parsed partition; ``parameter`` is ALPHA or K, and 0 where there is none."""

    kind: PartitionKind
    parameter: float = 0.0


class DataSettings(Settings):
    """Where the data is and how it is spread over sites."""

    source: Source = Field("digits", description="kind of data")
    path: Path | None = Field(
        None, description="file or folder of the data; a relative one is also looked up under $FLOP_P2P_DATA"
    )
    partition: str = Field(
        "iid",
        description="how data is spread over sites: iid, dirichlet:ALPHA, shards:K, quantity:ALPHA or natural",
    )
    sites: int = Field(8, ge=1, description="number of sites (ignored by the natural partition)")
    min_site_images: int = Field(0, ge=0, description="sites with fewer samples are small")
    small_sites: Literal["drop", "join"] = Field("drop", description="leave small sites out, or join them to one site")
    exclude_sites: tuple[str, ...] = Field((), description="names of sites to leave out")
    split: tuple[float, float, float] = Field(
        (0.7, 0.1, 0.2), description="fractions of a site's data for training, validation and test"
    )
    limit_images: int | None = Field(None, ge=1, description="use only so many samples, drawn by the seed")
    image_size: int | None = Field(None, ge=1, description="resize images to so many pixels in width and height")
    channels: Literal[1, 3] | None = Field(None, description="1 for grey, 3 for colour; default as the source has it")
    path_column: str = Field("path", description="image-csv: column with the image file")
    label_column: str = Field("label", description="csv and image-csv: column with the label")
    patient_column: str | None = Field(
        None, description="csv and image-csv: column with the patient, an identity that holds over all sites"
    )
    site_column: str | None = Field(None, description="csv and image-csv: column with the site")

    @field_validator("partition")
    @classmethod
    def _known_partition(cls, value: str) -> str:
        parse_partition(value)
        return value

    @field_validator("split", mode="before")
    @classmethod
    def _split_from_text(cls, value: object) -> object:
        parts = value.split(",") if isinstance(value, str) else value
        if not isinstance(parts, list | tuple) or len(parts) != 3:
            raise ValueError("give three fractions, for training, validation and test, such as 0.7,0.1,0.2")
        return tuple(parts)

    @field_validator("split")
    @classmethod
    def _split_is_whole(cls, value: tuple[float, float, float]) -> tuple[float, float, float]:
        train, validation, test = value
        if train <= 0 or test <= 0 or validation < 0 or abs(sum(value) - 1) > 1e-6:
            raise ValueError("training and test fractions must be positive and all three sum to 1")
        return value


def parse_partition(text: str) -> Partition:
    """The kind of a partition and its parameter.

    Raises:
        ValueError: ``text`` is none of ``iid``, ``natural``, ``dirichlet:ALPHA``, ``quantity:ALPHA``, ``shards:K``.
    """
    match text.split(":"):
        case ["iid" | "natural" as kind]:
            return Partition(kind)
        case ["dirichlet" | "quantity" as kind, alpha] if _is_positive(alpha):
            return Partition(kind, float(alpha))
        case ["shards", classes] if classes.isdecimal() and int(classes) > 0:
            return Partition("shards", int(classes))
        case _:
            raise ValueError(
                "a partition is iid, natural, dirichlet:ALPHA, quantity:ALPHA or shards:K, for example dirichlet:0.3"
            )


def _is_positive(text: str) -> bool:
    try:
        return 0 < float(text) < math.inf
    except ValueError:
        return False
