"""The latest round that a node declared a masked body for: `masking.json`, on the disk before anything is declared.

It is a file of its own beside the checkpoints. If a checkpoint is lost and the node goes on from the one before, it
must not declare another body of a round in which it may have answered a list of participants already.
"""

from pathlib import Path

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from flop_p2p.errors import NodeError
from flop_p2p.node.lines import replace_durably
from flop_p2p.writing import writing

FILE = "masking.json"
REMEDY = (
    "without it nobody knows which masked bodies were sent; put it back, or begin anew with another state directory"
)


class _File(BaseModel):
    """declared: round, counted from 0."""

    model_config = ConfigDict(extra="forbid")

    declared: NonNegativeInt


class Declared:
    """The record of one node.

    Args:
        folder: the state directory.
        published: the round of the body that a checkpoint holds as published, -1 if none.
        begun: a body was published before, so the file must be there.

    Attributes:
        before: the latest round that may have been declared before this start, -1 if none.

    Raises:
        NodeError: the file is missing or damaged.
    """

    def __init__(self, folder: Path, published: int, *, begun: bool = False) -> None:
        self._path = folder / FILE
        self.before = max(published, self._read(begun))

    def declare(self, round_index: int) -> None:
        """Masked bodies of this round may be declared from now on.

        Raises:
            RunError: the file cannot be written; then nothing may be declared.
        """
        with writing(self._path):
            replace_durably(self._path, _File(declared=round_index).model_dump_json().encode())

    def _read(self, begun: bool) -> int:
        try:
            return _File.model_validate_json(self._path.read_bytes()).declared
        except FileNotFoundError:
            if begun:
                raise NodeError(f"{self._path}: is missing, and this node has published a body; {REMEDY}") from None
            return -1
        except (OSError, ValidationError) as error:
            raise NodeError(f"{self._path}: cannot be read ({str(error).splitlines()[0]}); {REMEDY}") from error
