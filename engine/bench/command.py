"""`bcistream bench` on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from engine.output import Output
from streamer.errors import ConfigError

if TYPE_CHECKING:
    from engine.backends import BackendConfig
    from engine.bench.job import Stream

LISTED = "separated by commas, or `all`"


def bench(
    what: Annotated[
        str,
        typer.Option(
            help="transport, decision, step, many (streams on one core, a table for each --backend); "
            f"{LISTED}."
        ),
    ] = "transport,decision,step",
    stream: Annotated[
        str | None,
        typer.Option(
            help="Transport: eeg-8 (where nothing is said), eeg-64, eeg-64-1k, emg-16-2k, fast-64-40k; "
            f"{LISTED} but the last."
        ),
    ] = None,
    channels: Annotated[
        int | None,
        typer.Option(min=1, help="Transport: a stream of your own, instead of --stream; goes with --sfreq."),
    ] = None,
    sfreq: Annotated[
        float | None, typer.Option(help="Sampling rate of your own stream, and of the decision's (250), Hz.")
    ] = None,
    against: Annotated[str, typer.Option(help=f"floor, mne-lsl, ezmsg, timeflux; {LISTED}.")] = "floor",
    seconds: Annotated[
        float, typer.Option(min=3.0, help="Transport and decision: how long to measure each system.")
    ] = 30.0,
    rounds: Annotated[int, typer.Option(min=1, help="In how many turns; 1 measures in one piece.")] = 3,
    bundle: Annotated[str, typer.Option(help="Folder or name of a bundle.")] = "motor-imagery",
    backend: Annotated[
        list[str] | None,
        typer.Option(help="As in a run's YAML, a kind or {kind: ..., ...}; may be given several times."),
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Draw the latencies: .png, .svg or .pdf.")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")] = False,
) -> None:
    """Measure latency and cost on this machine, beside a bare pylsl loop and other software, in turns."""
    from engine.bench.consumers import PEERS
    from engine.bench.job import checked
    from engine.bench.plot import draw, need
    from engine.bench.printed import show
    from engine.bench.report import JOBS, Options, measure

    out = Output(json)
    with out.errors():
        options = Options(
            what=listed(what, JOBS, "--what"),
            streams=streams(stream, channels, sfreq),
            sfreq=Options.sfreq if sfreq is None else checked(sfreq),
            against=listed(against, tuple(PEERS), "--against", may_be_empty=True),
            seconds=seconds,
            rounds=rounds,
            bundle=bundle,
            backends=backends(backend or ["onnxruntime"]),
        )
        if plot is not None:
            need(plot, options.what)
        measured = measure(options, say=out.say)
        if plot is not None and not draw(measured.latencies, plot):
            out.say("  nothing is drawn: all of them lost samples, which leaves no latency")
        if json:
            out.document(measured.document)
        else:
            show(out, measured.document)


def listed(
    text: str,
    known: tuple[str, ...],
    option: str,
    meant_by_all: tuple[str, ...] = (),
    *,
    may_be_empty: bool = False,
) -> tuple[str, ...]:
    """Return an option's names in the order of ``known``, each once; `ConfigError` for an unknown or none."""
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names and not may_be_empty:
        raise ConfigError(f"{option} takes {', '.join(known)} or all; nothing was named.")
    if unknown := [name for name in names if name not in (*known, "all")]:
        raise ConfigError(f"{option} takes {', '.join(known)} or all; not {', '.join(map(repr, unknown))}.")
    if "all" in names:
        names += meant_by_all or known
    return tuple(name for name in known if name in names)


def streams(text: str | None, channels: int | None, sfreq: float | None) -> tuple[Stream, ...]:
    """Return the streams of the transport: the named ones, or one's own; `ConfigError`."""
    from engine.bench.job import ALL, STREAMS, own

    if channels is None:
        text = "eeg-8" if text is None else text
        return tuple(STREAMS[name] for name in listed(text, tuple(STREAMS), "--stream", ALL))
    if text is not None:
        raise ConfigError(f"--channels is a stream of your own, --stream {text} is another: leave one out.")
    if sfreq is None:
        raise ConfigError("--channels needs --sfreq: how many samples a second does your stream have?")
    return (own(channels, sfreq),)


def backends(texts: list[str]) -> dict[str, BackendConfig]:
    """Return the settings of each backend by the text that it was asked for with; `ConfigError`."""
    import yaml

    from engine.config import parse

    found = {}
    for text in texts:
        try:
            raw = yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ConfigError(f"--backend {text!r} is not YAML: {error}") from error
        block = {"kind": raw} if isinstance(raw, str) else raw
        source = {"kind": "lsl"}
        found[text] = parse({"source": source, "bundle": "bench", "backend": block}, "--backend").backend
    return found
