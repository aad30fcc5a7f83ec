"""What a node declared before a restart is known after it, whatever became of its checkpoints."""

from pathlib import Path

import pytest

from flop_p2p.errors import NodeError, RunError
from flop_p2p.node.declared import FILE, Declared


def test_the_latest_round_is_known_after_a_restart(tmp_path: Path) -> None:
    assert Declared(tmp_path, -1).before == -1
    record = Declared(tmp_path, 3)
    assert record.before == 3
    record.declare(4)
    record.declare(5)
    assert record.before == 3  # what this start declares itself it may go on with
    assert Declared(tmp_path, 3).before == 5
    assert Declared(tmp_path, 6).before == 6


@pytest.mark.parametrize("content", [b"", b"{}", b'{"declared": -1}', b'{"declared": 1, "more": 2}', b"[1]", b"\xff"])
def test_a_damaged_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / FILE).write_bytes(content)
    with pytest.raises(NodeError, match=r"masking\.json: cannot be read .*another state directory"):
        Declared(tmp_path, 0)


def test_a_missing_file_is_refused_once_a_body_was_published(tmp_path: Path) -> None:
    with pytest.raises(NodeError, match=r"masking\.json: is missing, and this node has published a body"):
        Declared(tmp_path, 3, begun=True)


def test_without_the_file_nothing_is_declared(tmp_path: Path) -> None:
    record = Declared(tmp_path / "missing", -1)
    with pytest.raises(RunError, match=r"masking\.json: cannot be written"):
        record.declare(0)
