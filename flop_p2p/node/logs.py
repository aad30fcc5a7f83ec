"""Logging of a node: for people on a terminal, plain lines elsewhere, or JSON for machines.

Fields beside the message are given the usual way: ``logger.info("round complete", extra={"round": 3})``.
"""

import json
import logging
import sys
from datetime import UTC, datetime

from rich.console import Console
from rich.logging import RichHandler

from flop_p2p.errors import ConfigError

FORMATS = ("auto", "human", "json")
LEVELS = ("debug", "info", "warning", "error")
STANDARD_FIELDS = {*vars(logging.makeLogRecord({})), "message", "asctime"}


def set_up_logging(format: str = "auto", level: str = "info", site: str = "") -> None:  # noqa: A002
    """Send the log of this process to standard error.

    Args:
        format: ``json``: one object a line; ``human`` and ``auto``: coloured on a terminal, plain lines elsewhere.
        level: of our own messages; other libraries are heard from warnings on.
        site: name of the site, in every JSON object.

    Raises:
        ConfigError: no such format or level.
    """
    for value, known, flag in ((format, FORMATS, "--log-format"), (level, LEVELS, "--log-level")):
        if value not in known:
            raise ConfigError(f"{flag} {value}: must be {', '.join(known[:-1])} or {known[-1]}")
    logging.basicConfig(level=logging.WARNING, handlers=[_handler(format, site)], force=True)
    logging.getLogger("flop_p2p").setLevel(level.upper())


def log_is_json() -> bool:
    """Whether this process logs JSON, so that its last words are to be JSON too."""
    return any(isinstance(handler.formatter, JsonFormatter) for handler in logging.getLogger().handlers)


def _handler(kind: str, site: str) -> logging.Handler:
    handler: logging.Handler = logging.StreamHandler()
    if kind == "json":
        handler.setFormatter(JsonFormatter(site))
    elif sys.stderr.isatty():
        handler = RichHandler(console=Console(stderr=True), show_path=False, omit_repeated_times=False)
        handler.setFormatter(LineFormatter("%(message)s"))
    else:
        handler.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
    return handler


class LineFormatter(logging.Formatter):
    """A line for people: the message, then its fields as ``key=value``. Neighbours cannot put line breaks into it."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the name that logging calls
        """The line without the traceback of an error."""
        fields = "".join(f" {key}={value}" for key, value in _fields(record).items())
        return _printable(super().formatMessage(record) + fields)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, site, logger, event, the fields, and the traceback of an error.

    Args:
        site: name of the site.
    """

    def __init__(self, site: str) -> None:
        super().__init__()
        self._site = site

    def format(self, record: logging.LogRecord) -> str:
        """The object of one record."""
        content = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "site": self._site,
            "logger": record.name,
            "event": record.getMessage(),
        }
        if record.exc_info:
            content["exception"] = self.formatException(record.exc_info)
        return json.dumps({**content, **_fields(record), **content}, default=str)  # fields cannot pose as event or site


def _fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key not in STANDARD_FIELDS}


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)
