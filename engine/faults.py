"""Turns pydantic's validation errors into lines a person can act on."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TypeVar

from pydantic import ValidationError

from streamer.components import modules
from streamer.errors import BciError

T = TypeVar("T")

SLOTS = ("streamer.sources", "streamer.dsp", "streamer.sinks", "engine.backends", "engine.decision")


def faults(error: ValidationError) -> str:
    """Return every fault of a validation on a line of its own: path, what is wrong, what came."""
    lines = []
    for item in error.errors(include_url=False):
        path = _path(item["loc"])
        what = item["msg"].removeprefix("Value error, ")
        got = "" if item["type"] in {"missing", "value_error"} else f" (got {_short(item['input'])})"
        if item["type"] == "extra_forbidden":
            what, got = f"unknown key {item['loc'][-1]!r}", ""
        lines.append(f"  {path}: {what}{got}")
    return "\n".join(lines)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return `` Did you mean 'x'?`` for the closest choice, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" Did you mean {close[0]!r}?" if close else ""


def for_each(names: Sequence[str], make: Callable[[int], T]) -> list[T]:
    """Return what is made for each of several streams, by its place; `BciError` as from `refuse`."""
    made: list[T] = []
    wrong: dict[str, BciError] = {}
    for place, name in enumerate(names):
        try:
            made.append(make(place))
        except BciError as error:
            wrong[name] = error
    refuse(wrong)
    return made


def refuse(wrong: Mapping[str, BciError]) -> None:
    """Raise what is wrong with streams, if anything is, all at once, each after the stream's name.

    The error is of the kind of the first.
    """
    for first in wrong.values():
        raise type(first)("\n".join(f"{name}: {error}" for name, error in wrong.items())) from first


def _path(loc: tuple[int | str, ...]) -> str:
    """Write a location as in the YAML: ``sinks[0].name``; the union's own tag is left out."""
    kinds = {kind for slot in SLOTS for kind in modules(slot)}
    text = ""
    for i, part in enumerate(loc):
        if isinstance(part, int):
            text += f"[{part}]"
        elif not (part in kinds and 0 < i < len(loc) - 1):
            text += f".{part}" if text else part
    return text or "(whole file)"


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
