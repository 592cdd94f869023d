"""Where a figure comes from: machine and versions."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version


def versions(*packages: str) -> dict[str, str]:
    """Return Python's version and those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in ("bcistream", *packages):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def machine() -> str:
    """Return processor architecture and system, for people."""
    return f"{platform.machine()}, {platform.system()} {platform.release()}"
