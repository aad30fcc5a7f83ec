"""One tree of errors, each with the exit code that its docstring promises."""

import inspect
import re

import pytest

from flop_p2p import errors
from flop_p2p.errors import FlopError, Interrupted

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, FlopError)]


def documented() -> dict[str, int]:
    """Exit codes drawn in the docstring of the module."""
    text = errors.__doc__ or ""
    return {name: int(code) for name, code in re.findall(r"^\s*[├└─ ]*(\w+)\s+(\d+)  ", text, re.MULTILINE)}


def test_the_docstring_draws_every_error_with_its_code() -> None:
    assert documented() == {kind.__name__: kind.exit_code for kind in ALL}


def test_exit_codes_are_unique_and_possible() -> None:
    codes = [kind.exit_code for kind in ALL]
    assert len(set(codes)) == len(codes)
    assert all(0 < code < 256 and code != 2 for code in codes)  # 2 is a wrong command line
    assert Interrupted.exit_code == 128 + 2  # as a shell reports SIGINT


@pytest.mark.parametrize("kind", ALL)
def test_every_error_is_one_of_ours(kind: type[FlopError]) -> None:
    assert kind is FlopError or kind.__bases__ == (FlopError,)
    assert str(kind("site north: no data")) == "site north: no data"
    assert kind.__doc__


def test_the_base_stands_for_what_was_not_foreseen() -> None:
    assert FlopError.exit_code == 1
    assert issubclass(FlopError, Exception)
    assert not issubclass(FlopError, ValueError)
