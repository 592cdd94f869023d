"""Properties of the cost report: true counts, equal values before times, and refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from typer.testing import CliRunner  # noqa: E402

from offline.blocks.conv import CausalConv1d  # noqa: E402
from offline.cli import app  # noqa: E402
from offline.cost import count_mmac, measure, of_recipe  # noqa: E402
from offline.models import brainrvq  # noqa: E402
from streamer.errors import BundleError, ConfigError  # noqa: E402

RECIPE = Path(__file__).parents[2] / "configs" / "train_motor_imagery.yaml"


class Toy(nn.Module):
    """Two convolutions over hops: (1, 3, T) -> latent (1, T / 4, 5)."""

    n_chans, hop, delay, bounded = 3, 4, 0, True

    def __init__(self) -> None:
        super().__init__()
        self.down = CausalConv1d(3, 6, 8, stride=4)
        self.over = CausalConv1d(6, 5, 3)
        self.left_context = self.down.left + 2 * self.hop

    def init_state(self, batch: int) -> Any:
        return self.down.init_state(batch), self.over.init_state(batch)

    def forward(self, x: Any, state: Any) -> tuple[dict[str, Any], Any]:
        y, down = self.down(x, state[0])
        y, over = self.over(y, state[1])
        return {"latent": y.transpose(1, 2)}, (down, over)


def test_macs_are_those_of_the_arithmetic() -> None:
    """A convolution costs taps x channels x outputs per frame, attention its two products."""
    per_frame = 8 * 3 * 6 + 3 * 6 * 5
    assert count_mmac(Toy(), 4) == pytest.approx(per_frame / 1e6)
    assert count_mmac(Toy(), 40) == pytest.approx(10 * per_frame / 1e6)
    config = brainrvq.SMALL
    layers = {n: config.model_copy(update={"layers": n, "form": "window"}).build() for n in (1, 2)}
    tokens, dim = config.n_chans * config.context, config.dim
    expected = tokens * 12 * dim**2 + 2 * tokens**2 * dim
    counted = [count_mmac(layer, config.hop) for layer in layers.values()]
    assert counted[1] - counted[0] == pytest.approx(expected / 1e6)


def test_a_wrong_left_context_is_found_before_anything_is_timed() -> None:
    """A model that sees more than it says differs from its window, and there is no report."""
    torch.manual_seed(0)
    model = Toy().eval()
    model.left_context -= model.hop
    with pytest.raises(BundleError, match="left_context"):
        measure(model, seconds=0.0)


def test_a_model_that_remembers_for_ever_is_refused() -> None:
    """No window gives the values of a recurrence."""
    model = Toy().eval()
    model.bounded = False
    with pytest.raises(ConfigError, match="remembers for ever"):
        measure(model, seconds=0.0)


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    """A pretraining whose shards and tokenizer do not exist, of a backbone in its published form."""
    path = tmp_path / "recipe.yaml"
    path.write_text(
        """
        card: {name: a, version: "1", title: A}
        system:
          kind: brainrvq
          tokenizer: none
          model: {ch_names: [C3, C4], hop: 8, context: 4, form: window, dim: 16, layers: 3, heads: 2,
                  patch_channels: 2, patch_kernel: 3, patch_stride: 2}
        data: {shards: [none], validate: [S001], crop_s: 4.0}
        optim: {steps: 2}
        steps_per_epoch: 1
        output: none
        """
    )
    return path


def test_command_compares_all_forms(recipe: Path) -> None:
    """`bcitrain cost RECIPE --json` gives each form's window, count and times, and its worth in steps."""
    result = CliRunner().invoke(app, ["cost", str(recipe), "--seconds", "0", "--json"])
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    forms = document["forms"]
    # Two blocks over time look back three frames each; the published window is four frames.
    assert {name: form["samples"] for name, form in forms.items()} == {
        "step": 8,
        "recompute": (2 * 3 + 1) * 8,
        "published": 4 * 8,
    }
    assert document["difference"] < 1e-5
    for form in forms.values():
        assert form["x_mmac"] == pytest.approx(form["mmac"] / forms["step"]["mmac"], rel=0.1)
        assert 0 < form["p50_ms"] <= form["p99_ms"]
        assert form["calls"] >= 1
    assert {"machine", "versions"} <= set(document)


def test_recipes_of_both_kinds_give_models(recipe: Path) -> None:
    """A backbone comes in both its forms, whichever its recipe asks for; a trained decoder comes alone."""
    model, published = of_recipe(recipe)
    assert (model.config.form, published.config.form) == ("causal", "window")
    assert model.config.dim == published.config.dim == 16
    decoder, none = of_recipe(RECIPE)
    assert none is None
    assert decoder.n_latent > 0


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    """A missing file, and one of something else, are errors that name it."""
    with pytest.raises(ConfigError, match="cannot be read"):
        of_recipe(tmp_path / "absent.yaml")
    for content in ("a: 1\n", "3\n", "- system\n"):
        (tmp_path / "other.yaml").write_text(content)
        with pytest.raises(ConfigError, match=r"other\.yaml"):
            of_recipe(tmp_path / "other.yaml")
