"""Writes a part of a pretrained system as a bundle: the tokenizer, the codec's decoder, or the backbone.

What a part puts out decides what the bundle is for (`engine.manifest`): ``codes`` make it one for `bcistream
tokens`, ``signal`` one for `bcistream listen`, a ``latent`` alone a backbone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.bundle import Bundle, Graph
from engine.bundle_folder import refuse_other
from engine.manifest import CODES_UNIT
from offline import run_folder
from offline.blocks.scale import RunningScale
from offline.data.shards import ShardSet
from offline.export import TOOLS, write
from offline.export_graph import Array, check_parity, export_step, per_channel, probes
from offline.provenance import versions
from offline.runs import PretrainRun, load_run, load_system
from offline.systems import System
from streamer.errors import ConfigError, RecordingError

NOISE_UV = 20.0
PROBE_ROWS = 4
WHAT = {"signal": "codes back to a waveform", "latent": "latents"}


def export_part(
    folder: str | Path,
    part: str,
    out_folder: str | Path,
    *,
    ch_names: Sequence[str] | None = None,
    version: str | None = None,
) -> Bundle:
    """Write the bundle of one part of a pretraining.

    Parameters
    ----------
    folder : str or Path
        What `bcitrain pretrain` wrote.
    part : str
        ``tokenizer``, ``decoder`` or ``backbone``; not every system has each.
    out_folder : str or Path
        Made where it does not exist; a model card that is already in it is kept.
    ch_names : sequence of str, optional
        The montage, for a part that has one; the first that was trained on by default.
    version : str, optional
        Instead of the recipe's.

    Raises
    ------
    ConfigError
        No such run or part, or a montage for a part that takes any; or the folder holds another bundle, or
        cannot be written.
    BundleError
        The graph does not compute what the part computes: nothing is written.
    """
    run, system = load_run(folder), load_system(folder)
    module = choose(system, part)
    refuse_other(Path(out_folder), _name(run, system, part))
    names = _montage(run, module, part, ch_names)
    if names:
        module = _located(module, names, run.stype)
    n_chans = int(_attribute(module, "n_chans"))
    graph_bytes, graph = export_step(module, n_chans)
    tokenizer = system.parts()["tokenizer"] if _product(graph) == "signal" else None
    signals = [_as_codes(tokenizer, x) if tokenizer else x for x in _probes(run, tokenizer or module, graph)]
    check_parity(module, graph_bytes, graph, signals)
    manifest = _manifest(run, system, part, module, graph, names)
    manifest["version"] = version or run.recipe.card.version
    return write(manifest, graph_bytes, Path(out_folder))


def is_pretraining(folder: str | Path) -> bool:
    """Say whether a run folder is that of a pretraining; False where there is none at all."""
    return run_folder.names_block(folder, "system")


def part_names(folder: str | Path) -> tuple[str, ...]:
    """Return the parts of a pretraining."""
    return tuple(sorted(load_system(folder).parts()))


def choose(system: System, part: str) -> nn.Module:
    """Return a part by name; `ConfigError` lists those that there are."""
    parts = system.parts()
    if part not in parts:
        raise ConfigError(f"This system has no part {part!r}: --part is one of {', '.join(sorted(parts))}.")
    return parts[part].eval()


def codec_id(system: System) -> str:
    """Return what tells codecs apart: the first 16 digits of the SHA-256 of what turns codes into signal.

    That is the decoder, its codebooks among it; the tokenizer, where nothing is decoded.
    """
    parts = system.parts()
    shared = parts.get("decoder", parts["tokenizer"])
    sha = hashlib.sha256()
    for name, value in sorted(shared.state_dict().items()):
        sha.update(f"{name} {tuple(value.shape)} {value.dtype};".encode())
        sha.update(np.ascontiguousarray(value.detach().cpu().numpy()).tobytes())
    return sha.hexdigest()[:16]


def _montage(
    run: PretrainRun, module: nn.Module, part: str, ch_names: Sequence[str] | None
) -> tuple[str, ...]:
    """Return the channels of a part that has a montage, () for one that takes each channel by itself."""
    if per_channel(module):
        if ch_names:
            raise ConfigError(
                f"The {part} takes each channel by itself and works for any montage: leave out --ch-names."
            )
        return ()
    own: Sequence[str] = getattr(module, "ch_names", run.montages[0])  # those of the recipe
    return tuple(ch_names or own)


def _located(module: nn.Module, ch_names: tuple[str, ...], stype: str) -> nn.Module:
    """Return the part at a montage."""
    moved: Any = getattr(module, "with_channels", None)
    if moved is not None:
        placed: nn.Module = moved(ch_names, stype).eval()
        return placed
    n_chans = _attribute(module, "n_chans")
    if len(ch_names) != n_chans:
        raise ConfigError(f"This part takes {n_chans} channels; {len(ch_names)} names were given.")
    return module


def _probes(run: PretrainRun, module: nn.Module, graph: Graph) -> list[Array]:
    """Return signals (B, C, T) to compare graph and part on: noise in µV, and held-out recordings."""
    n_chans = int(_attribute(module, "n_chans"))
    return probes(module, n_chans, graph, NOISE_UV) + list(_recorded(run, module, n_chans))


def _recorded(run: PretrainRun, module: nn.Module, n_chans: int) -> Iterator[Array]:
    """Yield a segment of the held-out subjects, if their shards are still where they were."""
    try:
        folders, held_out = run.recipe.data.shards, set(run.subjects["validate"])
        there = [name for name in ShardSet(folders, batch_size=1).subjects if name in held_out]
        shards = ShardSet(folders, batch_size=PROBE_ROWS, subjects=there or None)
        batches = list(shards.validation_batches(1))
    except (ConfigError, RecordingError):
        return
    hop = int(_attribute(module, "hop"))
    for batch in batches:
        x = batch.x[..., : batch.x.shape[-1] // hop * hop]
        if per_channel(module):
            yield x.flatten(0, 1)[:PROBE_ROWS, None].numpy()
        elif x.shape[1] >= n_chans:
            yield x[:1, :n_chans].contiguous().numpy()


def _as_codes(tokenizer: Any, x: Array) -> Array:
    """Return what a tokenizer makes of a signal, as its decoder takes it: (B, K + 1, F) float32."""
    with torch.inference_mode():
        outputs, _ = tokenizer(torch.from_numpy(x), tokenizer.init_state(len(x)))
    codes = outputs["codes"]  # (B, F, K)
    if "gain" in outputs:
        codes = torch.cat([codes, outputs["gain"].reshape(*codes.shape[:2], 1)], dim=-1)
    rows: Array = codes.transpose(1, 2).float().contiguous().numpy()
    return rows


def _product(graph: Graph) -> str:
    """Return which of the outputs the part is for."""
    names = {tensor.name for tensor in graph.outputs}
    return next(name for name in ("signal", "codes", "latent") if name in names)


def _manifest(
    run: PretrainRun, system: System, part: str, module: nn.Module, graph: Graph, names: tuple[str, ...]
) -> dict[str, Any]:
    card, product = run.recipe.card, _product(graph)
    decodes = product == "signal"
    samples = next(tensor.shape[-1] for tensor in graph.outputs if tensor.name == product)
    return {
        "name": _name(run, system, part),
        "title": card.title if product == "codes" else f"{card.title}: {WHAT[product]}",
        "system": run.recipe.system.kind,
        "input": {
            "stype": run.stype,
            "sfreq": run.sfreq / samples if decodes else run.sfreq,
            "unit": CODES_UNIT if decodes else run.unit,
            "ch_names": names,
            "min_present": max(1, (len(names) + 1) // 2),
            "per_channel": per_channel(module),
            "dsp": [] if decodes else [step.model_dump(mode="json") for step in run.dsp],
        },
        "graph": graph.model_dump(mode="json"),
        **_block(run, system, module, graph),
        "provenance": _provenance(run),
    }


def _name(run: PretrainRun, system: System, part: str) -> str:
    """Return what the bundle of a part is called."""
    main = part == "tokenizer" or len(system.parts()) == 1
    return run.recipe.card.name if main else f"{run.recipe.card.name}-{part}"


def _block(run: PretrainRun, system: System, module: nn.Module, graph: Graph) -> dict[str, Any]:
    """Return the manifest's block about what comes out."""
    product, outputs = _product(graph), {tensor.name for tensor in graph.outputs}
    if product == "latent":
        return {"features": {"latent": "latent"}}
    n_codebooks = int(_attribute(module, "n_codebooks"))
    gained = "gain" in outputs if product == "codes" else _attribute(module, "n_chans") > n_codebooks
    codec = {
        "codec": codec_id(system),
        "n_codebooks": n_codebooks,
        "codebook_size": _attribute(module, "codebook_size"),
        "n_gains": _gains(module) if gained else None,
    }
    if product == "signal":
        return {"signal": {**codec, "output": "signal", "sfreq": run.sfreq, "unit": run.unit}}
    names = {name: name for name in ("gain", "latent") if name in outputs}
    return {"tokens": {**codec, "codes": "codes", **names}}


def _gains(module: nn.Module) -> int:
    """Return how many values a gain code may take."""
    return next(layer.n_gains for layer in module.modules() if isinstance(layer, RunningScale))


def _attribute(module: nn.Module, name: str) -> Any:
    """Return what a part publishes about itself; nn.Module types every attribute as a tensor."""
    value: Any = getattr(module, name)
    return value


def _provenance(run: PretrainRun) -> dict[str, Any]:
    return {
        "trained_on": {
            "shards": [Path(folder).name for folder in run.recipe.data.shards],
            "tables": [table.path.name for table in run.recipe.data.tables],
            "subjects": run.subjects,
        },
        "fingerprints": run.fingerprints,
        "recipe": run.recipe.course(),
        "steps": run.steps,
        "finished": run.finished,
        "hours": run.hours,
        "channel_hours": run.channel_hours,
        "validation": run.scores,
        "versions": run.versions | versions(*TOOLS),
        "machine": run.machine,
    }
