"""What the commands share: their options, what must be installed, and what Ctrl-C leaves."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from engine.output import EXIT_INTERRUPTED, Output
from streamer.errors import MissingDependency

Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
BundleRef = Annotated[
    str, typer.Argument(metavar="BUNDLE", help="A bundle's folder, or the name of a shipped one.")
]
DataFolder = Annotated[Path, typer.Option(help="Folder of recordings.")]
Changes = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="SETTING=VALUE", help="Instead of the file's; may be repeated."),
]
Resume = Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")]
Subjects = Annotated[
    list[str] | None, typer.Option(help="Only these: a name or a range, S065-S080; may be repeated.")
]


DONE_STAYS = "what is done is kept. Go on: the same command"
BEGINS_ANEW = "nothing is kept. The same command begins anew"


def need(*packages: str) -> None:
    """Raise MissingDependency unless these can be imported; nothing is imported yet."""
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise MissingDependency(
            f"This command needs {', '.join(missing)}, not installed here: pip install 'bcistream[offline]'"
        )


@contextmanager
def keeping(out: Output, kept: str | Callable[[], str]) -> Iterator[None]:
    """Where Ctrl-C ends what runs inside, say what is kept and how to go on, and exit as interrupted."""
    try:
        yield
    except KeyboardInterrupt:
        interrupted(out, kept if isinstance(kept, str) else kept())


def interrupted(out: Output, kept: str) -> NoReturn:
    """Say what an interrupted command kept, and exit as interrupted."""
    if out.json:
        out.document({"error": {"type": "Interrupted", "message": f"Interrupted; {kept}"}})
    else:
        out.say(f"Interrupted; {kept}")
    raise SystemExit(EXIT_INTERRUPTED)
