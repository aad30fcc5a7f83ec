"""What differs between two sites' federations, in one line, when what the other sent may be anything."""

import itertools
import json
from collections.abc import Iterator
from typing import Any

from flop_p2p.config import FederationSettings
from flop_p2p.config.federation import MAX_CANONICAL

LONGEST_KEY = 60  # characters of a key or a name that are shown
LONGEST_VALUE = 50
KEPT_BEFORE = 10  # characters before the first differing one that are shown
FIRST = ("name", "protocol", "revision", "members")  # what explains most comes before the rest


def difference(own: FederationSettings, other_canonical: str) -> str:
    """The first setting in which another site's federation differs, with both values; under 200 characters.

    Printable whatever the other sent; comparing goes as deep as the own federation, not as the other's text.

    Args:
        other_canonical: what the other site says is the canonical form of its federation.
    """
    mine, theirs = json.loads(own.canonical), _parsed(other_canonical)
    if theirs is None:
        return "what it sent is no federation"
    members = _by_name(theirs.get("members"))
    if members is None:
        return "what it sent has no list of members"
    mine["members"], theirs["members"] = _by_name(mine["members"]), members
    others = sorted((mine.keys() | theirs.keys()) - set(FIRST))
    for key in (*FIRST, *others):
        found = _differing_members(mine[key], members) if key == "members" else _differing(mine, theirs, key, key)
        for line in found:
            return line
    return "nothing but the way in which it is written"


def _parsed(text: str) -> dict[str, Any] | None:
    """The JSON object in a text, None if there is none or it is too large or too deep."""
    if len(text) > MAX_CANONICAL:
        return None
    try:
        values = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return values if isinstance(values, dict) else None


def _by_name(members: Any) -> dict[str, dict[str, Any]] | None:
    if not isinstance(members, list):
        return None
    if not all(isinstance(member, dict) and isinstance(member.get("name"), str) for member in members):
        return None
    return {member["name"]: member for member in members}


def _differing_members(mine: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    for name in sorted(mine.keys() | theirs.keys()):
        shown = f"member {_clean(name, LONGEST_KEY)}"
        if name not in theirs or name not in mine:
            yield f"{shown} is missing {'there' if name in mine else 'here'}"
            continue
        for key in sorted(mine[name].keys() | theirs[name].keys()):
            if any(_differing(mine[name], theirs[name], key, key)):
                yield f"{shown} has another {_clean(key, LONGEST_KEY)}"


def _differing(mine: dict[str, Any], theirs: dict[str, Any], key: str, dotted: str) -> Iterator[str]:
    """One line for each difference under ``key`` of two tables, values that are tables or lists gone through."""
    if key not in theirs or key not in mine:
        yield f"{_clean(dotted, LONGEST_KEY)} is missing {'there' if key in mine else 'here'}"
        return
    here, there = mine[key], theirs[key]
    if isinstance(here, list) and isinstance(there, list) and len(here) == len(there):
        here, there = ({str(number): value for number, value in enumerate(values, 1)} for values in (here, there))
    if isinstance(here, dict) and isinstance(there, dict):
        for inner in sorted(here.keys() | there.keys()):
            yield from _differing(here, there, inner, f"{dotted}.{inner}")
    elif here != there:
        yield f"{_clean(dotted, LONGEST_KEY)} is {' here and '.join(_shown(here, there))} there"


def _shown(here: Any, there: Any) -> tuple[str, str]:
    """Both values as short text from about where they begin to differ."""
    try:
        texts = [json.dumps(value, ensure_ascii=False) for value in (here, there)]
    except RecursionError:
        return _clean(str(here), LONGEST_VALUE), "something very deep"
    alike = sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*texts, strict=False)))
    start = max(0, alike - KEPT_BEFORE) if max(map(len, texts)) > LONGEST_VALUE else 0
    first, second = (("…" if start else "") + text[start:] for text in texts)
    return _clean(first, LONGEST_VALUE), _clean(second, LONGEST_VALUE)


def _clean(text: str, longest: int) -> str:
    """Printable text (no control or formatting characters, no lone surrogates) of at most so many characters."""
    short = text if len(text) <= longest else text[: longest - 1] + "…"
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in short)
