"""The arrows between the packages, and what a wheel holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.bundle import shipped

ROOT = Path(__file__).parent.parent
MAY_IMPORT = {"streamer": set(), "engine": {"streamer"}, "offline": {"streamer", "engine"}}
MODULES = [path for package in MAY_IMPORT for path in sorted((ROOT / package).rglob("*.py"))]


def imported(path: Path) -> set[str]:
    """Return the top-level names that a module imports anywhere in it, functions included."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    """Streamer ← engine ← offline, and torch is offline's alone."""
    package = path.relative_to(ROOT).parts[0]
    forbidden = set(MAY_IMPORT) - MAY_IMPORT[package] - {package}
    if package != "offline":
        forbidden |= {"torch", "lightning", "sklearn", "pyriemann"}
    assert not imported(path) & forbidden


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_are_short(path: Path) -> None:
    """No file is longer than 400 lines."""
    assert len(path.read_text().splitlines()) <= 400


def test_the_live_path_starts_light() -> None:
    """Importing everything that a run needs loads neither torch nor MNE nor a plotting library."""
    code = (
        "import sys, engine.cli, engine.config, engine.live, streamer.sources.lsl;"
        "print([m for m in ('torch', 'mne', 'matplotlib', 'sklearn', 'pandas') if m in sys.modules])"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Names of the files in a freshly built wheel."""
    out = tmp_path_factory.mktemp("wheel")
    command = [
        sys.executable,
        "-m",
        "pip",
        "wheel",
        "-q",
        "--no-deps",
        "--no-build-isolation",
        "-w",
        out,
        ROOT,
    ]
    subprocess.run(command, check=True, capture_output=True)
    (path,) = out.glob("bcistream-*.whl")
    return zipfile.ZipFile(path).namelist()


def test_the_wheel_holds_exactly_the_three_packages(wheel: list[str]) -> None:
    """Top level of the wheel: streamer, engine, offline and the dist-info."""
    top = {name.split("/")[0] for name in wheel}
    info = {name for name in top if name.endswith(".dist-info")}
    assert len(info) == 1
    assert top - info == {"streamer", "engine", "offline"}


def test_the_wheel_holds_every_module_and_bundle(wheel: list[str]) -> None:
    """Nothing that the checkout needs is left out of the wheel."""
    wanted = {str(path.relative_to(ROOT)) for path in MODULES}
    wanted |= {f"{package}/py.typed" for package in MAY_IMPORT}
    files = [file for folder in shipped().values() for file in folder.rglob("*") if file.is_file()]
    wanted |= {str(file.relative_to(ROOT)) for file in files}
    assert wanted <= set(wheel)
