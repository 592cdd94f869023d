"""`bcistream check`: does this stream fit this bundle, without running."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.adapt import fit
from engine.bundle import Bundle, load
from engine.calibration import personal
from engine.calibration import read as read_calibration
from engine.config import (
    COMMANDS,
    ListenConfig,
    ManyConfig,
    RunConfig,
    SessionConfig,
    SignalConfig,
    TokensConfig,
    parse_as,
    read_yaml,
)
from engine.faults import for_each
from engine.listen import check as check_codes
from engine.operating import outlook, settle
from engine.pipeline import Pipeline
from engine.recorded import from_file
from engine.token_stream import TokenInfo, from_lsl
from engine.tokens import Tokenizer, outputs_of
from streamer.errors import ConfigError
from streamer.lsl import ATTACH_S, answering, find, predicate
from streamer.lsl import load as load_lsl
from streamer.sources.lsl import Config as Lsl
from streamer.types import StreamInfo

COMMAND_OF = {"readout": "run", "tokens": "tokens", "features": "tokens", "signal": "listen"}


def read_any(path: str | Path) -> SessionConfig:
    """Read the YAML of a session of any kind: which one, its own keys tell, or else its bundle.

    Raises
    ------
    ConfigError, BundleError
        As from `engine.config.read_as` and `engine.bundle.load`.
    """
    raw = read_yaml(Path(path))
    if isinstance(raw, dict) and "sources" in raw:
        return parse_as(ManyConfig, raw, str(path))
    return parse_as(COMMANDS[_command(raw)], raw, str(path))


def check(config: SessionConfig, file: Path | None = None) -> dict[str, Any]:
    """Look at the stream, and say how it is adapted to the bundle; nothing is published or written.

    Raises
    ------
    BciError
        Whatever would have stopped the session before its first sample.
    """
    bundle = load(config.bundle)
    if isinstance(config, ManyConfig):
        if file is not None:
            raise ConfigError("A recording is one stream: leave out --file to check several sources.")
        bundle.batched(len(config.sources))  # refuses a graph of one row
        for name in config.names:
            for sink in config.sinks:
                sink.of_stream(name)  # refuses what cannot be had for each
        alone = list(config.alone().values())
        answers = for_each(config.names, lambda place: _decided(alone[place], bundle))
        return dict(zip(config.names, answers, strict=True))
    if isinstance(config, ListenConfig):
        if file is not None:
            raise ConfigError("A recording holds no codes: leave out --file to check what is listened to.")
        return _listened(config, bundle)
    assert isinstance(config, SignalConfig)
    config = from_file(config, file)
    if isinstance(config, TokensConfig):
        return _coded(config, bundle)
    assert isinstance(config, RunConfig)
    return _decided(config, bundle)


def _command(raw: Any) -> str:
    """Return the command that these settings are for; `run` where nothing tells."""
    if not isinstance(raw, dict):
        return "run"
    run, tokens = set(RunConfig.model_fields), set(TokensConfig.model_fields)
    if not (tokens - run).isdisjoint(raw):
        return "tokens"
    if not (run - tokens).isdisjoint(raw) or not isinstance(raw.get("bundle"), str):
        return "run"
    return COMMAND_OF[load(raw["bundle"]).manifest.product]


def _decided(config: RunConfig, bundle: Bundle) -> dict[str, Any]:
    readout = bundle.readout  # a bundle for another command is refused before a stream is waited for
    settings = settle(readout.decision, readout.operating, config.decision, bundle.label)
    calibration = read_calibration(config.calibration) if config.calibration else None
    with config.backend.open(bundle) as backend:
        info = config.source.look()
        pipeline = Pipeline(
            bundle, backend, info, quality=config.quality, decision=settings, calibration=calibration
        )
        own, made = personal(bundle, calibration), pipeline.interpolated
        told = outlook(readout.decision, readout.operating, settings, personal=own, interpolated=made)
        return _answer("run", info, backend.name) | pipeline.describe() | {"decides": told}


def _coded(config: TokensConfig, bundle: Bundle) -> dict[str, Any]:
    outputs_of(bundle, config.publish)
    info = config.source.look()
    fitted = fit(bundle, info, config.quality)
    sized = bundle.sized(fitted.ch_names)
    with config.backend.open(sized) as backend:
        tokenizer = Tokenizer(sized, backend, info, fitted, config.publish)
        return _answer("tokens", info, backend.name) | tokenizer.describe() | {"sfreq": info.sfreq}


def _listened(config: ListenConfig, bundle: Bundle) -> dict[str, Any]:
    _ = bundle.signal
    tokens = _described(config.source)
    name = config.source.name or tokens.bundle
    check_codes(bundle, tokens, name)
    with config.backend.open(bundle.sized(tokens.ch_names)) as backend:
        return {
            "fits": True,
            "command": "bcistream listen",
            "stream": name,
            "coded_by": f"{tokens.bundle} {tokens.version}",
            "codec": tokens.codec,
            "channels": len(tokens.ch_names),
            "ch_names": list(tokens.ch_names),
            "frames_per_s": round(tokens.rate, 6),
            "sfreq": tokens.sfreq,
            "unit": tokens.unit,
            "backend": backend.name,
        }


def _described(source: Lsl) -> TokenInfo:
    """Return what the token stream says of itself, without subscribing to it."""
    found = find(predicate(source.name, source.stype, source.source_id), source.timeout_s)
    with answering(found):
        described = load_lsl().StreamInlet(found, recover=False).info(ATTACH_S)
    return from_lsl(described)


def _answer(command: str, info: StreamInfo, backend: str) -> dict[str, Any]:
    """Return what is said of any stream that fits."""
    return {
        "fits": True,
        "command": f"bcistream {command}",
        "stream": info.name,
        "n_chans": info.n_chans,
        "ch_names": list(info.ch_names),
        "sfreq": info.sfreq,
        "unit": info.unit,
        "backend": backend,
    }
