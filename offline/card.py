"""A bundle's model card, put in with its hash."""

from __future__ import annotations

import json
from pathlib import Path

from engine.bundle import MANIFEST, Bundle, digest, load
from engine.bundle_folder import CARD, replace_files
from streamer.errors import BundleError, ConfigError


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
