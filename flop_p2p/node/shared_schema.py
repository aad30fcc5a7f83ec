"""`schema.json` in the state directory: the names and shapes that a site shares, and the names that it keeps."""

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from flop_p2p.errors import EgressError, NodeError
from flop_p2p.partial import Schema, Split, TensorSpec
from flop_p2p.writing import write_text

SCHEMA_FILE = "schema.json"
NUMBER_BYTES = 4  # float32; encodings take no more


@dataclass(frozen=True)
class SharedSchema:
    """The schema of the bodies that leave a site, the names of its private tensors, the bytes that a body may take."""

    body: Schema
    head: tuple[str, ...]
    sizes: tuple[int, ...]


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid")

    body: list[tuple[str, list[int], str]]
    head: list[str]
    sizes: list[int]


def read_schema(folder: Path) -> SharedSchema | None:
    """What ``schema.json`` in ``folder`` says; None where there is none.

    Raises:
        EgressError: it cannot be read.
    """
    path = folder / SCHEMA_FILE
    try:
        content = _File.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise EgressError(f"{path}: cannot be read ({error.strerror})") from error
    except ValidationError as error:
        raise EgressError(
            f"{path}: damaged ({error.errors()[0]['msg']}); move it away, and the next start writes it anew"
        ) from error
    specs = tuple(TensorSpec(name, tuple(shape), dtype) for name, shape, dtype in content.body)
    body = Schema(specs)
    whole = NUMBER_BYTES * body.parameters
    if max(content.sizes, default=0) > whole:
        raise EgressError(f"{path}: {body.parameters} numbers never take {max(content.sizes)} bytes; it was altered")
    return SharedSchema(body, tuple(content.head), tuple(content.sizes))


def write_schema(folder: Path, split: Split, sizes: tuple[int, ...]) -> None:
    """Write ``schema.json`` of a model's split. One that is there must be the same: a log was written by it.

    Args:
        sizes: bytes that a body may take.

    Raises:
        NodeError: the folder is that of another model or split, or of other compression.
        RunError: it cannot be written.
    """
    path = folder / SCHEMA_FILE
    body = [(spec.name, list(spec.shape), spec.dtype) for spec in split.body.tensors]
    text = _File(body=body, head=list(split.head.names), sizes=list(sizes)).model_dump_json() + "\n"
    if not path.exists():
        write_text(path, text)
    elif read_schema(folder) != SharedSchema(split.body, split.head.names, sizes):
        raise NodeError(
            f"{path}: the state directory is that of another model or split, or other compression; "
            "give this site a directory of its own"
        )
