"""A bundle's model card, put in with its hash."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from engine.bundle import MANIFEST, Bundle, digest, load
from engine.bundle_folder import CARD, replace_files
from streamer.errors import BundleError, ConfigError

ANEW = b"\n## Operated anew\n"
SECTION = re.compile(re.escape(ANEW) + rb".*?(?=\n## |\Z)", re.DOTALL)


def put(folder: Path, text: Path) -> Bundle:
    """Write the card and the manifest with the card's hash, and read the bundle back.

    Parameters
    ----------
    folder : Path
        Of the bundle.
    text : Path
        The card; may be the file in the bundle itself, once it was edited.

    Raises
    ------
    ConfigError
        The card cannot be read.
    BundleError
        The folder holds no bundle, or one that is damaged elsewhere.
    """
    try:
        content = text.read_bytes()
    except OSError as error:
        raise ConfigError(f"{text} cannot be read: {error.strerror}.") from error
    try:
        manifest = json.loads((folder / MANIFEST).read_bytes())
        manifest["files"][CARD] = digest(content)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(f"{folder} holds no bundle that could take a card ({error}).") from error
    replace_files(folder, {CARD: content, MANIFEST: f"{json.dumps(manifest, indent=1)}\n".encode()})
    return load(folder)


def operated_anew(card: bytes, about: Mapping[str, Any]) -> bytes:
    """Return a card that says, in one section at its end, that its figures are of the settings before.

    Parameters
    ----------
    card : bytes
        All else in it stays; a section of an earlier time goes.
    about : mapping
        What the settings were measured on: the manifest's ``provenance["operating"]``.
    """
    n = len(about["subjects"])
    people = f"{n} people" if n > 1 else "1 person"
    if "temperature_of" in about:  # of a bundle without an idle class: nothing else is another
        said = (
            f"The temperature was taken over: the median of {about['temperature_of']}, measured on {people}. "
            "How sure this bundle is, above, is at the one before."
        )
    else:
        said = (
            f"How this bundle decides was fitted anew, on {people} (decisions of {about['decisions_of']}). "
            "Hits and false activations above are of the settings before: `bcistream check` tells the new "
            "ones."
        )
    kept = SECTION.sub(b"", card)
    end = b"" if kept.endswith(b"\n") else b"\n"
    return kept + end + ANEW + f"\n{said}\n".encode()
