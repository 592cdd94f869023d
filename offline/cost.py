"""What a decision costs: a step of a streaming model against computing its window again.

``step``
    Looks at one hop and the state.
``recompute``
    The same model without a state: the whole left context again for every hop.  It gives the step's values,
    which is checked before anything is timed.
``published``
    For models that have it, the form that looks both ways over its window and so can only compute it again.
    Other values, same sizes: what one would run instead.

Multiply-accumulates are counted from the model as it runs, milliseconds are measured through ONNX Runtime on
one thread, the forms in turn.  Weights do not matter to either and are random.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from offline import yaml_file
from offline.compiled import Stepper, Window, frames, n_chans, noise
from offline.export import TOLERANCE
from offline.pretrain import recipe as pretrain_recipe
from offline.provenance import machine, versions
from offline.train import recipe
from streamer.errors import BundleError, ConfigError

FORMS = ("causal", "window")  # of a model that has both
NOMINAL_SFREQ = 200.0
MORE_FRAMES = 3  # streamed beyond a whole left context before values are compared
STEPS_PER_ROUND = 10  # a step is short: so many for one window
Call = Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Form:
    """One way to come to a decision.

    Attributes
    ----------
    samples : int
        Looked at anew for each decision.
    mmac : float
        Millions of multiply-accumulates per decision.
    run : callable
        Computes a decision.
    calls : int
        Per round of the timing.
    """

    samples: int
    mmac: float
    run: Call
    calls: int = 1


def measure(model: Any, *, published: Any = None, seconds: float = 20.0) -> dict[str, Any]:
    """Count and time a decision in every form.

    Parameters
    ----------
    model, published : models on the state contract of `offline.models`, in eval mode
        ``published`` computes its window in every step.
    seconds : float
        Of timing; every form is called at least once, however long it takes.

    Returns
    -------
    dict
        ``forms``: for each its samples, MMAC, p50 and p99 in ms, calls, and how many steps it is worth in
        MMAC and in ms (``x_mmac``, ``x_ms``); ``difference`` of step and recompute, relative where values
        exceed 1; ``machine`` and ``versions``.

    Raises
    ------
    ConfigError
        The model remembers for ever: no window gives its values.
    BundleError
        Step and recompute differ.
    """
    if not getattr(model, "bounded", True):
        raise ConfigError(
            f"{type(model).__name__} remembers for ever, so no window gives what its steps give. "
            "Choose a recipe whose model has a bounded context."
        )
    step, window = Stepper(model), Window(model)
    difference = check(step, window)
    forms = {
        "step": Form(model.hop, count_mmac(model, model.hop), step.again, STEPS_PER_ROUND),
        "recompute": Form(window.samples, count_mmac(model, window.samples), window.again),
    }
    if published is not None:
        seen = frames(published) * published.hop
        forms["published"] = Form(seen, count_mmac(published, published.hop), Stepper(published).again)
    return {
        "forms": _figures(forms, clock(list(forms.values()), seconds)),
        "difference": difference,
        "machine": machine(),
        "versions": versions("torch", "onnx", "onnxscript", "onnxruntime"),
    }


def of_recipe(path: str | Path) -> tuple[Any, Any]:
    """Return the model of a training or the backbone of a pretraining, and its published form or None.

    Both with random weights, in eval mode.  A pretraining's rate comes from its shards, which need not be
    there: sizes do not depend on it.

    Raises
    ------
    ConfigError
        Not a recipe, or of a system without a backbone.
    """
    raw = yaml_file.read(path, "Recipe")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if not (isinstance(raw, Mapping) and "system" in raw):
            model: Any = recipe.parse(raw, str(path)).model.build()
        else:
            parts = pretrain_recipe.parse(raw, str(path)).system.build(NOMINAL_SFREQ).parts()
            if "backbone" not in parts:
                raise ConfigError(f"{path} has no backbone to decide with; its parts are {', '.join(parts)}.")
            model = parts["backbone"]
        config: Any = getattr(model, "config", None)
        if not hasattr(config, "form"):
            return model.eval(), None
        causal, window = (config.model_copy(update={"form": form}).build().eval() for form in FORMS)
        return causal, window


def count_mmac(model: Any, samples: int) -> float:
    """Return the millions of multiply-accumulates (products, convolutions) of one call on (1, C, samples).

    Of the model as it is exported: maps that are one there are counted once.
    """
    model = model.fused() if hasattr(model, "fused") else model
    x = torch.zeros(1, n_chans(model), samples)
    # Fused attention is not counted; written as two products it is.
    with torch.no_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounterMode(display=False) as counter:
        model(x, model.init_state(1))
    return float(counter.get_total_flops()) / 2e6


def check(step: Stepper, window: Window) -> float:
    """Stream past a whole left context; return how far step and window are apart, or raise BundleError."""
    n_samples = window.samples + MORE_FRAMES * step.hop
    x = noise(step.n_chans, n_samples, seed=1)
    for start in range(0, n_samples, step.hop):
        stepped = step.step(np.ascontiguousarray(x[..., start : start + step.hop]))
    again = window.last(np.ascontiguousarray(x[..., n_samples - window.samples :]))
    difference = max(_apart(a, b) for a, b in zip(stepped, again, strict=True))
    if not difference <= TOLERANCE:
        raise BundleError(
            f"The step and its window of {window.samples} samples differ by {difference:.1e}; at most "
            f"{TOLERANCE:.0e} is allowed. Is the model's left_context true?"
        )
    return difference


def clock(forms: Sequence[Form], seconds: float) -> list[NDArray[np.float64]]:
    """Return the durations (ms) of the calls of each form, taken in turn until ``seconds`` have passed."""
    taken: list[list[float]] = [[] for _ in forms]
    for form in forms:
        form.run()  # the first call allocates
    end = time.perf_counter() + seconds
    while not taken[0] or time.perf_counter() < end:
        for form, durations in zip(forms, taken, strict=True):
            for _ in range(form.calls):
                start = time.perf_counter()
                form.run()
                durations.append(1e3 * (time.perf_counter() - start))
    return [np.array(durations) for durations in taken]


def _figures(forms: dict[str, Form], taken: Sequence[NDArray[np.float64]]) -> dict[str, dict[str, float]]:
    step, step_ms = forms["step"], float(np.median(taken[0]))
    figures = {}
    for (name, form), durations in zip(forms.items(), taken, strict=True):
        p50, p99 = (float(value) for value in np.percentile(durations, [50, 99]))
        figures[name] = {
            "samples": form.samples,
            "mmac": round(form.mmac, 3),
            "p50_ms": round(p50, 3),
            "p99_ms": round(p99, 3),
            "calls": len(durations),
            "x_mmac": round(form.mmac / step.mmac, 1),
            "x_ms": round(p50 / step_ms, 1),
        }
    return figures


def _apart(a: NDArray[Any], b: NDArray[Any]) -> float:
    size = max(1.0, float(np.abs(b).max(initial=0.0)))
    return float(np.abs(a.astype(np.float64) - b).max(initial=0.0)) / size
