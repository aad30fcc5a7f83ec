"""The log of a node: lines for people, objects for machines, and neighbours that cannot forge either."""

import json
import logging
import re
import sys
from collections.abc import Iterator

import pytest

from flop_p2p.errors import ConfigError
from flop_p2p.node.logs import set_up_logging

logger = logging.getLogger("flop_p2p.node.somewhere")


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    root, own = logging.getLogger(), logging.getLogger("flop_p2p")
    before = root.level, root.handlers[:], own.level
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]
    own.setLevel(before[2])


def test_json_is_an_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("json", "info", "north")
    logger.info("round %s complete", 3, extra={"round": 3, "loss": 0.5, "site": "forged", "odd": {1}})
    logger.debug("not shown")
    try:
        raise ValueError("bad")
    except ValueError:
        logger.exception("failed\nbadly")
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", first.pop("time"))
    assert first == {
        "level": "info",
        "site": "north",
        "logger": "flop_p2p.node.somewhere",
        "event": "round 3 complete",
        "round": 3,
        "loss": 0.5,
        "odd": "{1}",
    }
    assert second["event"] == "failed\nbadly"
    assert second["exception"].endswith("ValueError: bad")


@pytest.mark.parametrize("kind", ["auto", "human"])
def test_lines_for_people_where_there_is_no_terminal(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging(kind)
    logger.warning("lost %s", "south\nforged line\x1b[2J", extra={"round": 3, "reason": "no [bold]answer"})
    (line,) = capsys.readouterr().err.splitlines()
    assert re.fullmatch(
        r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d,\d{3} WARNING "
        r"lost south\\nforged line\\x1b\[2J round=3 reason=no \[bold\]answer",
        line,
    )


def test_a_terminal_gets_the_same_words(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "100")
    monkeypatch.setenv("NO_COLOR", "1")
    set_up_logging()
    logger.info("lost [bold]south\x1b[2J", extra={"round": 3})
    shown = re.sub(r"\x1b\[[\d;]*m", "", capsys.readouterr().err)  # rich's own colours
    assert "lost [bold]south\\x1b[2J round=3" in shown
    assert "INFO" in shown


def test_levels_are_of_our_own_messages(capsys: pytest.CaptureFixture[str]) -> None:
    set_up_logging("human", "debug")
    logger.debug("shown")
    logging.getLogger("asyncio").info("not shown")
    logging.getLogger("asyncio").warning("shown too")
    set_up_logging("human", "error")
    logger.warning("no longer")
    assert [line.split(" ", 3)[3] for line in capsys.readouterr().err.splitlines()] == ["shown", "shown too"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("xml",), "--log-format xml: must be auto, human or json"),
        (("json", "loud"), "--log-level loud: must be debug"),
    ],
)
def test_unknown_formats_and_levels_are_named(arguments: tuple[str, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        set_up_logging(*arguments)
