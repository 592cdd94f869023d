"""The toy bundle as fixtures."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from toy_bundle import toy_graph, toy_manifest, write_bundle

from engine.bundle import Bundle, load
from engine.manifest import FREE_ROWS


@pytest.fixture(scope="session")
def toy_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the toy bundle; not to be written to."""
    graph = toy_graph()
    return write_bundle(tmp_path_factory.mktemp("bundles") / "toy", toy_manifest(graph), graph)


@pytest.fixture(scope="session")
def toy(toy_folder: Path) -> Bundle:
    """The toy bundle, loaded."""
    return load(toy_folder)


@pytest.fixture(scope="session")
def toy_rows(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The toy bundle whose graph takes any number of streams."""
    graph = toy_graph(FREE_ROWS)
    manifest = toy_manifest(graph)
    manifest["graph"]["rows"] = "free"
    return load(write_bundle(tmp_path_factory.mktemp("bundles") / "toy-rows", manifest, graph))


@pytest.fixture
def toy_writer(tmp_path: Path) -> Callable[..., Path]:
    """Write a toy bundle with changes to its manifest: ``toy_writer(**{"input.sfreq": 250})``."""

    def write(graph: bytes | None = None, **changes: Any) -> Path:
        graph = graph or toy_graph()
        manifest = toy_manifest(graph)
        for path, value in changes.items():
            *parents, last = path.split(".")
            target = manifest
            for part in parents:
                target = target[part]
            target[last] = value
        return write_bundle(tmp_path / "bundle", manifest, graph)

    return write
