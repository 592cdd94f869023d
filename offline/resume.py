"""What every training that can be resumed shares: what it refuses, and how it is interrupted."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from streamer.errors import ConfigError


def changed_settings(before: Any, now: Any, path: str = "") -> list[str]:
    """Return where two recipes differ, as paths."""
    if not (isinstance(before, dict) and isinstance(now, dict)):
        return [] if before == now else [path]
    return [
        fault
        for key in sorted({*before, *now})
        for fault in changed_settings(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    ]


def check_unchanged(output: Path, changed: Sequence[str]) -> None:
    """Raise `ConfigError` where anything differs from what a checkpoint in ``output`` is of."""
    if changed:
        raise ConfigError(
            f"{output} cannot be resumed with this recipe: {', '.join(changed)} changed. Restore what it "
            "was, or train anew into another output."
        )


@contextmanager
def interruptible() -> Iterator[None]:
    """Raise KeyboardInterrupt where Lightning, told to stop, has torn down and would end the process."""
    try:
        yield
    except SystemExit:
        raise KeyboardInterrupt from None
