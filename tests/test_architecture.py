"""The arrows between the packages, and what a wheel holds."""

from __future__ import annotations

import ast
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from engine.bundle import shipped
from engine.config import there_or_shipped

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
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A freshly built wheel."""
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
    return zipfile.ZipFile(path)


def test_the_wheel_holds_exactly_the_three_packages(wheel: zipfile.ZipFile) -> None:
    """Top level of the wheel: streamer, engine, offline and the dist-info."""
    top = {name.split("/")[0] for name in wheel.namelist()}
    info = {name for name in top if name.endswith(".dist-info")}
    assert len(info) == 1
    assert top - info == {"streamer", "engine", "offline"}


def test_the_wheel_holds_every_module_and_bundle(wheel: zipfile.ZipFile) -> None:
    """Nothing that the checkout needs is left out of the wheel."""
    wanted = {str(path.relative_to(ROOT)) for path in MODULES}
    wanted |= {f"{package}/py.typed" for package in MAY_IMPORT}
    files = [file for folder in shipped().values() for file in folder.rglob("*") if file.is_file()]
    wanted |= {str(file.relative_to(ROOT)) for file in files}
    assert wanted <= set(wheel.namelist())


def test_who_installs_the_wheel_has_the_configs(wheel: zipfile.ZipFile, tmp_path: Path) -> None:
    """README's ``configs/x.yaml`` is found in the package where the working directory has no such file."""
    names = {path.name for path in (ROOT / "configs").glob("*.yaml")}
    assert {f"engine/configs/{name}" for name in names} <= set(wheel.namelist())
    wheel.extractall(tmp_path / "installed")
    script = (
        f"import sys; sys.path.insert(0, {str(tmp_path / 'installed')!r})\n"
        "from engine.config import read_run\n"
        "from offline import yaml_file\n"
        "assert read_run('configs/motor_imagery.yaml').bundle == 'motor-imagery'\n"
        "assert yaml_file.read('configs/train_gestures.yaml', 'Recipe')['model']['kind'] == 'gestures'\n"
        "print(yaml_file.__file__)"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(str(tmp_path / "installed"))


def test_a_config_of_ones_own_goes_before_the_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file in the working directory is the one that is meant."""
    monkeypatch.chdir(tmp_path)
    assert there_or_shipped("configs/motor_imagery.yaml") == ROOT / "configs" / "motor_imagery.yaml"
    assert there_or_shipped("motor_imagery.yaml") == Path("motor_imagery.yaml")
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "motor_imagery.yaml").write_text("bundle: mine\n")
    assert there_or_shipped("configs/motor_imagery.yaml") == Path("configs/motor_imagery.yaml")
