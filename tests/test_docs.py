"""The documentation names what exists, and what it names exists."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
import typer

from engine.bundle import load
from engine.cli import app as live
from engine.config import COMMANDS, ManyConfig, SessionConfig, read_as, read_run
from offline.cli import app as training
from streamer.components import modules

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", ROOT / "offline" / "README.md")
README = "\n".join(page.read_text() for page in PAGES)
SLOTS = ("streamer.sources", "streamer.dsp", "streamer.sinks", "engine.backends")
LOADERS = {
    "train": "offline.train.recipe",
    "pretrain": "offline.pretrain.recipe",
    "finetune": "offline.finetune.recipe",
    "probe": "offline.probe.recipe",
    "crossval": "offline.crossval.recipe",
    "benchmark": "offline.benchmark.recipe",
    "data prepare": "offline.data.prepare",
}
CONFIGS = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.mark.parametrize(
    ("slot", "kind"), [(slot, kind) for slot in SLOTS for kind in modules(slot)], ids=lambda x: str(x)
)
def test_every_kind_is_in_the_readme(slot: str, kind: str) -> None:
    """Each component has a row that names each of its settings."""
    rows = re.findall(rf"^\| `{kind}` \|.*$", README, re.MULTILINE)
    keys = set(modules(slot)[kind].Config.model_fields) - {"kind"}
    assert any(all(f"`{key}`" in row for key in keys) for row in rows)


@pytest.mark.parametrize("kind", [*COMMANDS.values(), ManyConfig])
def test_every_config_key_is_in_the_readme(kind: type[SessionConfig]) -> None:
    """Each key of the YAML of a live session is named."""
    assert not {key for key in kind.model_fields if f"`{key}`" not in README}


def test_every_setting_of_a_pretraining_is_in_the_readme() -> None:
    """Each system and model has its settings named."""
    pytest.importorskip("torch")
    from offline import models, systems
    from offline.blocks import quantize

    configs = [module.Config for module in (*systems.kinds().values(), *models.kinds().values(), quantize)]
    keys = {key for config in configs for key in config.model_fields}
    assert not {key for key in keys if f"`{key}`" not in README}


@pytest.mark.parametrize(("name", "app"), [("bcistream", live), ("bcitrain", training)])
def test_every_command_is_in_the_readme(name: str, app: typer.Typer) -> None:
    """Each command of both command lines is shown."""
    for command in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f"{name} {command}" in README


def test_every_command_in_the_readme_exists() -> None:
    """What the README tells people to type is there to be typed."""
    known = {
        name: set(typer.main.get_command(app).commands)  # type: ignore[attr-defined]
        for name, app in {"bcistream": live, "bcitrain": training}.items()
    }
    shown = re.findall(
        r"(bcistream|bcitrain) ([a-z]+)\b", " ".join(re.findall(r"```.*?```", README, re.DOTALL))
    )
    assert shown
    assert not [pair for pair in shown if pair[1] not in known[pair[0]]]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda p: p.name)
def test_every_config_says_what_it_is_and_how_to_run_it(path: Path) -> None:
    """Two comment lines open each file, the second is a command of ours on this very file; it loads."""
    first, second, *_ = path.read_text().splitlines()
    assert re.match(r"# .{20,}\.$", first)
    command = re.match(r"# (bcistream|bcitrain) ((?:data )?[a-z]+) (\S+)", second)
    assert command
    assert ROOT / command[3] == path
    if command[1] == "bcistream":
        config = read_run(path) if command[2] == "run" else read_as(COMMANDS[command[2]], path)
        if isinstance(config, ManyConfig):
            load(config.bundle).batched(len(config.sources))
    else:
        pytest.importorskip("torch")
        importlib.import_module(LOADERS[command[2]]).load(path)


def test_ci_runs_the_readmes_test_command() -> None:
    """The second command of the README is the one that CI calls."""
    command = re.search(r"```\n(python3 -m venv .* pytest|.*pytest)\n```", README)
    assert command
    assert command[1] in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_links_inside_the_project_lead_somewhere(page: Path) -> None:
    """Relative links and pictures of the README and of the training's exist."""
    for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists()
