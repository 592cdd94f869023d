"""The `bcistream` command: everything one does with a headset on somebody's head."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from engine.bench.command import bench
from engine.output import Output
from engine.recorded import from_file, parse_speed
from streamer.errors import ConfigError

app = typer.Typer(
    help="Runs biosignal models on live EEG and EMG: one causal step per hop, live equal to offline.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigPath = Annotated[Path, typer.Argument(metavar="CONFIG", help="YAML of the run; see configs/.")]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output.")]
Seconds = Annotated[float | None, typer.Option(min=0.1, help="Stop after so many seconds.")]

File = Annotated[
    Path | None,
    typer.Option(
        help="Take this recording instead of the config's source, without LSL; what its block says of the "
        "signal holds: channels, unit, labels."
    ),
]
Speed = Annotated[
    str | None, typer.Option(help="With --file: 1 for real time, or any factor, or 'max', the default.")
]
ChunkRows = Annotated[int | None, typer.Option("--chunk", min=1, help="With --file: samples per chunk.")]
Holes = Annotated[
    Literal["split", "repeat"] | None,
    typer.Option(
        help="With --file, where it keeps the beginning of every epoch only: repeat fills the rest."
    ),
]

app.command()(bench)


def main() -> None:
    """Run the command line."""
    app()


@app.command("run")
def run_command(
    config: ConfigPath,
    file: File = None,
    speed: Speed = None,
    chunk: ChunkRows = None,
    holes: Holes = None,
    seconds: Seconds = None,
    calibration: Annotated[
        Path | None, typer.Option(help="File of `bcistream calibrate`; instead of the config's.")
    ] = None,
    json: Json = False,
) -> None:
    """Decode a live stream until it ends, time is up, or Ctrl-C; exit code 1 if it was lost."""
    from engine.config import ManyConfig, read_run
    from engine.live import run_config
    from engine.many_live import run_many

    out = Output(json)
    with out.errors():
        settings = read_run(config)
        if json:
            quiet = tuple(sink for sink in settings.sinks if sink.kind != "console")
            settings = settings.model_copy(update={"sinks": quiet})
        if isinstance(settings, ManyConfig):
            if any(option is not None for option in (file, speed, chunk, holes, calibration)):
                raise ConfigError(
                    "--file, --speed, --chunk, --holes and --calibration are for one stream; "
                    f"{config} has several sources: say it there, in the block of each."
                )
            report = run_many(settings, seconds=seconds, say=out.say)
        else:
            settings = from_file(settings, file, speed, chunk, holes)
            if calibration is not None:
                settings = settings.model_copy(update={"calibration": calibration})
            report = run_config(settings, seconds=seconds, say=out.say)
    _finish(out, report)


@app.command()
def tokens(
    config: ConfigPath,
    file: File = None,
    speed: Speed = None,
    chunk: ChunkRows = None,
    holes: Holes = None,
    seconds: Seconds = None,
    json: Json = False,
) -> None:
    """Turn a live stream into a stream of codes, and print its bit rate; exit code 1 if it was lost."""
    from engine.config import TokensConfig, read_as
    from engine.tokens import run_tokens

    out = Output(json)
    with out.errors():
        settings = from_file(read_as(TokensConfig, config), file, speed, chunk, holes)
        report = run_tokens(settings, seconds=seconds, say=out.say)
    _finish(out, report)


@app.command()
def listen(config: ConfigPath, seconds: Seconds = None, json: Json = False) -> None:
    """Turn a stream of codes back into a waveform, as a stream of its own; exit code 1 if it was lost."""
    from engine.config import ListenConfig, read_as
    from engine.listen import run_listen

    out = Output(json)
    with out.errors():
        report = run_listen(read_as(ListenConfig, config), seconds=seconds, say=out.say)
    _finish(out, report)


@app.command()
def replay(
    file: Annotated[Path, typer.Argument(help="EDF, BDF, GDF, FIF, BrainVision, XDF, OpenBCI, CSV or npz.")],
    speed: Annotated[str, typer.Option(help="1 for real time, or any factor, or 'max'.")] = "1",
    name: Annotated[
        str | None, typer.Option(help="Name of the LSL stream; default: the file's name.")
    ] = None,
    stream: Annotated[str | None, typer.Option(help="Which stream of the file, by name or type.")] = None,
    wait_s: Annotated[
        float, typer.Option(help="Wait so long for somebody to listen before the first sample.")
    ] = 30.0,
    holes: Annotated[
        Literal["split", "repeat"],
        typer.Option(help="Where the file keeps the beginning of every epoch only: repeat fills the rest."),
    ] = "split",
    json: Json = False,
) -> None:
    """Play a recording as an LSL stream, its events (points in time) as a second one called NAME-markers."""
    from engine.replay import replay as play

    out = Output(json)
    with out.errors():
        speed_factor = parse_speed(speed)
        out.result(
            play(file, speed_factor, name, stream, wait_s, holes=holes, progress=not json, say=out.say)
        )


@app.command()
def demo(
    seconds: Annotated[
        float, typer.Option(min=10.0, help="How much signal the simulated subject gives.")
    ] = 60.0,
    seed: Annotated[int, typer.Option(help="Another seed is another subject.")] = 0,
    bundle: Annotated[str, typer.Option(help="Folder or name of a bundle.")] = "motor-rhythms",
    json: Json = False,
) -> None:
    """Decode a simulated subject over a real LSL stream, and score it."""
    from engine.demo import demo as show

    out = Output(json)
    with out.errors():
        out.result(show(seconds, seed, bundle, console=not json, say=out.say))


@app.command()
def calibrate(
    config: ConfigPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="Where the calibration goes, JSON.")],
    file: File = None,
    holes: Holes = None,
    seconds: Annotated[
        float | None,
        typer.Option(min=1.0, help="Of signal; default: all of a recording, a minute of a live stream."),
    ] = None,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Stop after so many labelled trials; with --cues, ask for them.")
    ] = None,
    classes: Annotated[
        str | None, typer.Option(help="Only these, separated by commas; default: all of the bundle.")
    ] = None,
    rest: Annotated[
        float, typer.Option(min=0.0, help="The first so many seconds are rest; centres the latents.")
    ] = 0.0,
    cues: Annotated[bool, typer.Option("--cues", help="Say in the terminal what to do when.")] = False,
    trial_s: Annotated[
        float | None,
        typer.Option(
            min=0.1,
            help="How long a trial lasts: where markers do not say it; with --cues at least what the bundle"
            " needs, default 4.",
        ),
    ] = None,
    pause_s: Annotated[
        float | None,
        typer.Option(
            min=1.0, help="With --cues: seconds between, at least what the bundle needs; default: 3."
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Refit the decoder's head to one person from labelled trials; kept only where it is better."""
    from engine.calibrate import calibrate as listen_and_refit
    from engine.calibrate import told
    from engine.calibrate_stream import PAUSE_S, Ask
    from engine.calibration import check_place, write
    from engine.config import read
    from engine.progress import progress_bar
    from engine.prompt import prompt

    out = Output(json)
    names = tuple(name.strip() for name in classes.split(",")) if classes is not None else None
    ask = Ask(seconds, trials, names, rest, cues, trial_s, pause_s or PAUSE_S)
    with out.errors():
        if pause_s and not cues:
            raise ConfigError("--pause-s goes with --cues: whoever sends markers makes the pauses.")
        check_place(output)
        settings = from_file(read(config), file, None if file is None else "max", holes=holes)
        with prompt(cues) as show, progress_bar("calibrate", not (json or cues)) as progress:
            made = listen_and_refit(settings, ask, say=out.say, show=show, progress=progress)
        write(made, output)
        out.result({**told(made), "written": str(output), "use": f"calibration: {output} in {config.name}"})


@app.command()
def devices(
    boards: Annotated[
        bool, typer.Option("--boards", help="List the boards that BrainFlow knows, too.")
    ] = False,
    wait_s: Annotated[float, typer.Option(min=0.1, help="How long to look for LSL streams.")] = 2.0,
    json: Json = False,
) -> None:
    """List the LSL streams that can be seen now, and the boards that could be connected."""
    from engine.devices import brainflow_boards, lsl_streams

    out = Output(json)
    with out.errors():
        streams = lsl_streams(wait_s)
        known = brainflow_boards() if boards or json else []
        if json:
            out.document({"lsl": streams, "brainflow": known})
            return
        out.table("LSL streams", streams)
        if boards:
            out.table("BrainFlow boards", known)


@app.command()
def doctor(json: Json = False) -> None:
    """Say what works on this machine, what does not, and what to do; exit code 1 if anything is broken."""
    from dataclasses import asdict

    from engine.doctor import examine

    out = Output(json)
    with out.errors():
        checks = examine()
    healthy = all(check.status != "broken" for check in checks)
    if json:
        out.document({"ok": healthy, "checks": [asdict(check) for check in checks]})
    else:
        out.table("bcistream doctor", [asdict(check) for check in checks])
    raise SystemExit(0 if healthy else 1)


@app.command()
def check(
    config: ConfigPath,
    file: Annotated[
        Path | None, typer.Option(help="Check this recording instead of the config's source.")
    ] = None,
    json: Json = False,
) -> None:
    """Say whether the stream fits the bundle and how it would be adapted, without running."""
    from engine.check import check as look
    from engine.check import read_any
    from engine.config import ManyConfig

    out = Output(json)
    with out.errors():
        settings = read_any(config)
        found = look(settings, file)
        if isinstance(settings, ManyConfig) and not json:
            out.results(found)
        else:
            out.result(found)


@app.command("compile")
def compile_command(
    bundle: Annotated[str, typer.Argument(metavar="BUNDLE", help="Folder or name of a bundle.")],
    backend: Annotated[
        Literal["tensorrt", "onnxruntime"], typer.Option(help="What is to run it.")
    ] = "tensorrt",
    precision: Annotated[
        Literal["fp32", "tf32", "fp16", "int8"], typer.Option(help="What it computes in.")
    ] = "fp32",
    batch: Annotated[
        int | None, typer.Option(min=1, help="The greatest number of rows; one per channel for any montage.")
    ] = None,
    calibrate: Annotated[
        Path | None, typer.Option(help="A recording: ranges for int8, and real signal to judge the plan on.")
    ] = None,
    capability: Annotated[
        str | None, typer.Option(help="Without a GPU: the compute capability to build for, such as 8.9.")
    ] = None,
    cache: Annotated[
        Path | None, typer.Option(help="Folder of the plans; default: BCISTREAM_CACHE, or the user's cache.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Folder of the int8 bundle for onnxruntime.")
    ] = None,
    json: Json = False,
) -> None:
    """Compile a bundle, "ready" only once it computes what ONNX Runtime does in float32."""
    from engine.compile import Settings, compile_bundle

    out = Output(json)
    with out.errors():
        settings = Settings(precision, batch, calibrate, capability, cache, output)
        out.result(compile_bundle(bundle, backend, settings, say=out.say))


def _finish(out: Output, report: dict[str, Any]) -> None:
    """Print the report; a stream that was lost or changed is a failure."""
    from engine.session import CHANGED, LOST

    streams = {} if out.json else report.get("streams", {})
    out.result({key: value for key, value in report.items() if key != "streams" or out.json})
    out.results(streams)
    raise SystemExit(1 if report["ended"] in (LOST, CHANGED) else 0)


if __name__ == "__main__":
    main()
