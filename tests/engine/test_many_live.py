"""A run of several streams: each comes out as it would alone, and ends for itself."""

from __future__ import annotations

import itertools
import json
import threading
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from toy_head import head, write_headed
from typer.testing import CliRunner

from engine.bundle import Bundle, load
from engine.calibration import Calibration, MadeOf, tied_to
from engine.check import check
from engine.cli import app
from engine.config import ManyConfig, RunConfig, parse_as, read_run
from engine.live import run_config
from engine.manifest import FREE_ROWS
from engine.many_live import run_many
from streamer.errors import BciError, ConfigError, StreamLost
from streamer.sources import SourceConfig
from streamer.sources.synthetic import Config as Synthetic
from streamer.types import Chunk

TOLERANCE = 1e-6  # of a probability; see test_many


def settings(bundle: Bundle, folder: Path, seeds: range = range(3), **more: Any) -> dict[str, Any]:
    sources = [{"source": source(seed), "name": f"p{seed}"} for seed in seeds]
    sinks = [{"kind": "jsonl", "path": str(folder / "said.jsonl")}]
    return {"bundle": str(bundle.folder), "sources": sources, "sinks": sinks, **more}


def source(seed: int) -> dict[str, Any]:
    chunk = 7 + 10 * seed  # each in another size
    return {"kind": "synthetic", "seed": seed, "speed": "max", "seconds": 8 + seed, "chunk": chunk}


def said(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()][1:]


def test_each_stream_says_what_it_would_say_alone(toy_rows: Bundle, tmp_path: Path) -> None:
    """Into a file of its own, in full to its end, with a report of its own."""
    report = run_many(parse_as(ManyConfig, settings(toy_rows, tmp_path), "test"))
    assert report["ended"] == "end of stream"
    for seed in range(3):
        path = tmp_path / f"alone-{seed}.jsonl"
        sinks = [{"kind": "jsonl", "path": str(path)}]
        raw = {"bundle": str(toy_rows.folder), "source": source(seed), "sinks": sinks}
        alone = run_config(parse_as(RunConfig, raw, "test"))
        found, wanted = said(tmp_path / f"said-p{seed}.jsonl"), said(path)
        assert [(d["index"], d["time"], d["label"]) for d in found] == [
            (d["index"], d["time"], d["label"]) for d in wanted
        ]
        for a, b in zip(found, wanted, strict=True):
            np.testing.assert_allclose(
                list(a["probabilities"].values()), list(b["probabilities"].values()), atol=TOLERANCE
            )
        mine = report["streams"][f"p{seed}"]
        assert mine["ended"] == "end of stream"
        assert {key: mine[key] for key in ("decisions", "labelled", "invalid", "samples_in")} == {
            key: alone[key] for key in ("decisions", "labelled", "invalid", "samples_in")
        }
    assert report["steps"] < sum(stream["decisions"] for stream in report["streams"].values())


def headed(folder: Path, owners: dict[str, float]) -> dict[str, Any]:
    """Settings of a bundle with a head and a measured rate; each owner has its head times a factor."""
    write_headed(folder / "headed", rows=FREE_ROWS)
    manifest = json.loads((folder / "headed" / "bundle.json").read_text())
    bound = load(folder / "headed").readout.decision.threshold
    manifest["readout"]["operating"] = [{"false_per_min": 1.0, "bound": bound, "hits": 0.5, "wrong": 0.1}]
    (folder / "headed" / "bundle.json").write_text(json.dumps(manifest))
    bundle = load(folder / "headed")
    raw = settings(bundle, folder)
    for one in raw["sources"]:
        if one["name"] in owners:
            own = Calibration(
                bundle=tied_to(bundle),
                method="the head was refitted",
                reason="a test",
                made_of=MadeOf(stream=one["name"], seconds=1.0, trials={}),
                weight=(owners[one["name"]] * head().weight).tolist(),
                bias=head().bias.tolist(),
            )
            one["calibration"] = str(folder / f"{one['name']}.json")
            Path(one["calibration"]).write_text(own.model_dump_json())
    return raw


def test_each_stream_is_decided_by_its_own_calibration(tmp_path: Path) -> None:
    """Nobody's head decides for somebody else, and who has none has the bundle's."""
    raw = headed(tmp_path, {"p0": 0.3, "p2": -2.0})
    run_many(parse_as(ManyConfig, raw, "test"))
    for one in raw["sources"]:
        path = tmp_path / f"alone-{one['name']}.jsonl"
        mine = {key: value for key, value in one.items() if key != "name"}
        alone = {"bundle": raw["bundle"], "sinks": [{"kind": "jsonl", "path": str(path)}], **mine}
        run_config(parse_as(RunConfig, alone, "test"))
        found, wanted = (
            [list(decision["probabilities"].values()) for decision in said(file)]
            for file in (tmp_path / f"said-{one['name']}.jsonl", path)
        )
        np.testing.assert_allclose(found, wanted, atol=TOLERANCE)


def test_what_to_expect_is_said_of_those_whom_it_was_measured_for(tmp_path: Path) -> None:
    """A rate that was measured with the bundle's head is not promised to whoever has another."""
    lines: list[str] = []
    run_many(parse_as(ManyConfig, headed(tmp_path, {"p1": 0.3}), "test"), say=lines.append)
    told = {line.split(": ")[0]: line for line in lines if line.startswith("decides")}
    assert set(told) == {"decides  p0, p2", "decides  p1"}
    assert "expect about 50 % of the commands" in told["decides  p0, p2"]
    assert "Nobody has measured what to expect since" in told["decides  p1"]
    assert "expect about" not in told["decides  p1"]


class Dying(SourceConfig):
    """A simulated subject whose amplifier is lost after so many chunks."""

    kind: str = "dying"
    chunks: int

    def open(self) -> DyingSource:
        return DyingSource(Synthetic.model_validate(source(0)), self.chunks)


class DyingSource:
    live = False

    def __init__(self, config: Synthetic, chunks: int) -> None:
        self._inner, self._left = config.open(), chunks
        self.info = self._inner.info

    def read(self, timeout_s: float) -> Chunk | None:
        self._left -= 1
        if self._left < 0:
            raise StreamLost("the amplifier is gone")
        return self._inner.read(timeout_s)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._inner.close()


class Silent(SourceConfig):
    """An amplifier that is there, and sends nothing."""

    kind: str = "silent"

    def open(self) -> SilentSource:
        return SilentSource(Synthetic.model_validate(source(0)), 0)


class SilentSource(DyingSource):
    live = True

    def read(self, timeout_s: float) -> Chunk | None:
        threading.Event().wait(timeout_s)
        return None


def test_a_stream_that_stays_silent_is_given_up_alone(toy_rows: Bundle, tmp_path: Path) -> None:
    """After ``give_up_s`` without a sample it is lost, long before its time is up; the others are decoded."""
    config = parse_as(ManyConfig, settings(toy_rows, tmp_path, give_up_s=30.0), "test")
    silent = config.sources[1].model_copy(update={"source": Silent()})
    config = config.model_copy(update={"sources": (config.sources[0], silent, config.sources[2])})
    lines: list[str] = []
    clock = itertools.count()  # a second whenever it is looked at
    report = run_many(config, seconds=10_000.0, say=lines.append, clock=lambda: float(next(clock)))
    assert {name: one["ended"] for name, one in report["streams"].items()} == {
        "p0": "end of stream",
        "p1": "stream lost",
        "p2": "end of stream",
    }
    assert "it is given up" in report["streams"]["p1"]["reason"]
    assert report["streams"]["p1"]["stalls"] == 1
    assert any(line.startswith("p1: No sample") for line in lines)


def test_a_stream_that_is_lost_ends_alone(toy_rows: Bundle, tmp_path: Path) -> None:
    """The others go on to their end; it is said, and the run's report has it."""
    config = parse_as(ManyConfig, settings(toy_rows, tmp_path), "test")
    dying = config.sources[1].model_copy(update={"source": Dying(chunks=60)})
    config = config.model_copy(update={"sources": (config.sources[0], dying, config.sources[2])})
    lines: list[str] = []
    report = run_many(config, say=lines.append)
    assert "p1: the amplifier is gone" in lines
    assert (report["ended"], report["reason"]) == ("stream lost", "the amplifier is gone")
    ended = {name: (one["ended"], one["decisions"]) for name, one in report["streams"].items()}
    whole = 16  # decisions a second
    assert ended["p0"] == ("end of stream", 8 * whole)
    assert ended["p2"] == ("end of stream", 10 * whole)
    assert ended["p1"][0] == "stream lost"
    assert 0 < ended["p1"][1] < 8 * whole


def test_a_stream_that_decided_nothing_says_why(toy_rows: Bundle, tmp_path: Path) -> None:
    """As a run of it alone: else a recording that is too short looks like one without an answer."""
    raw = settings(toy_rows, tmp_path)
    raw["sources"][1]["source"]["seconds"] = 0.02  # less than a hop
    report = run_many(parse_as(ManyConfig, raw, "test"))
    reasons = {name: one["reason"] for name, one in report["streams"].items()}
    assert "gave no decisions: 0.02 s of signal came" in reasons.pop("p1")
    assert set(reasons.values()) == {""}


@pytest.mark.parametrize("seconds", [2.0, 2.003])
def test_so_many_seconds_are_those_of_each_stream(toy_rows: Bundle, tmp_path: Path, seconds: float) -> None:
    """Each ends when its own signal is that long, whole samples or not; nothing behind it is read."""
    report = run_many(parse_as(ManyConfig, settings(toy_rows, tmp_path), "test"), seconds=seconds)
    assert {one["ended"] for one in report["streams"].values()} == {"time is up"}
    assert [one["decisions"] for one in report["streams"].values()] == [32, 32, 32]


def test_decisions_without_a_file_name_are_refused(toy_rows: Bundle, tmp_path: Path) -> None:
    """A path that names no file cannot carry a stream's name."""
    raw = settings(toy_rows, tmp_path) | {"sinks": [{"kind": "jsonl", "path": "."}]}
    with pytest.raises(ConfigError, match="no file for decisions"):
        run_many(parse_as(ManyConfig, raw, "test"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"source": {"kind": "synthetic"}}, "'source' is given for each of the 'sources'"),
        ({"calibration": "me.json"}, "'calibration' is given for each of the 'sources'"),
        ({"sources": []}, "sources"),
        ({"sources": [{"source": source(0), "name": "2"}, {"source": source(1)}]}, "are called 2"),
        ({"sources": [{"source": source(0), "name": "a/b"}]}, "name"),
    ],
)
def test_a_config_with_faults_is_refused(
    toy_rows: Bundle, tmp_path: Path, change: dict[str, Any], told: str
) -> None:
    """Each by what is wrong with it."""
    with pytest.raises(ConfigError, match=told):
        parse_as(ManyConfig, {**settings(toy_rows, tmp_path), **change}, "test")


def test_a_console_is_for_one_stream(toy_rows: Bundle, tmp_path: Path) -> None:
    """Several would write over each other."""
    config = parse_as(ManyConfig, settings(toy_rows, tmp_path, sinks=[{"kind": "console"}]), "test")
    with pytest.raises(ConfigError, match="shows one stream"):
        run_many(config)


def test_check_looks_at_each_stream(toy_rows: Bundle, toy: Bundle, tmp_path: Path) -> None:
    """One answer a stream, by name; and a bundle of one row is refused before anything is run."""
    path = tmp_path / "many.yaml"
    path.write_text(json.dumps(settings(toy_rows, tmp_path)))
    result = CliRunner().invoke(app, ["check", str(path), "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)) == {"p0", "p1", "p2"}
    read = CliRunner().invoke(app, ["check", str(path)]).stdout
    assert len([line for line in read.splitlines() if line.split()[0] == "fits"]) == 3, "a line each"
    path.write_text(json.dumps(settings(toy, tmp_path)))
    for command in ("check", "run"):
        refused = CliRunner().invoke(app, [command, str(path), "--json"])
        assert refused.exit_code == 2
        assert "takes one stream at a time" in json.loads(refused.stdout)["error"]["message"]


def test_the_command_runs_several(toy_rows: Bundle, tmp_path: Path) -> None:
    """`bcistream run` takes such a config, and refuses what is for one stream."""
    path = tmp_path / "many.yaml"
    path.write_text(json.dumps(settings(toy_rows, tmp_path)))
    assert isinstance(read_run(path), ManyConfig)
    result = CliRunner().invoke(app, ["run", str(path), "--seconds", "2", "--json"])
    assert result.exit_code == 0, result.output
    assert set(json.loads(result.stdout)["streams"]) == {"p0", "p1", "p2"}
    for sink in tmp_path.glob("said-*"):
        sink.unlink()
    read = CliRunner().invoke(app, ["run", str(path), "--seconds", "2"]).stdout
    decisions = [line.split() for line in read.splitlines() if line.split()[0] == "decisions"]
    assert decisions == [["decisions", "32"]] * 3, "what people read has a line for each"
    for option in (["--file", "me.edf"], ["--speed", "2"], ["--chunk", "8"], ["--holes", "split"]):
        refused = CliRunner().invoke(app, ["run", str(path), *option, "--json"])
        assert refused.exit_code == 2
        assert "are for one stream" in json.loads(refused.stdout)["error"]["message"]


def spoilt(kind: str, folder: Path) -> dict[str, Any]:
    """Return what of a stream's block is wrong."""
    if kind == "calibration":
        return {"calibration": str(folder / "none.json")}
    if kind == "stream":
        return {"source": source(0) | {"ch_names": ["C3"]}}
    return {"source": {"kind": "recording", "path": str(folder / "none.npz")}}


@pytest.mark.parametrize("kind", ["calibration", "stream", "recording"])
def test_what_is_wrong_with_streams_is_told_by_name(toy_rows: Bundle, tmp_path: Path, kind: str) -> None:
    """Of all that have a fault at once, by a check and by a run."""
    raw = settings(toy_rows, tmp_path)
    for place in (0, 2):
        raw["sources"][place] |= spoilt(kind, tmp_path)
    config = parse_as(ManyConfig, raw, "test")
    for start in (run_many, check):
        with pytest.raises(BciError) as error:
            start(config)
        lines = str(error.value).splitlines()
        assert [line[:4] for line in lines if line[:1] == "p"] == ["p0: ", "p2: "]


@pytest.mark.parametrize(
    ("command", "told"),
    [
        (["calibrate", "-o", "me.json"], "and name the file that it makes under `sources[i].calibration`"),
        (["tokens"], "use a YAML with one `source`."),
    ],
)
def test_a_command_for_one_stream_says_so(
    toy_rows: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], told: str
) -> None:
    """What to do with a YAML of several is said, not only that the key is unknown."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "many.yaml"
    path.write_text(json.dumps(settings(toy_rows, tmp_path)))
    refused = CliRunner().invoke(app, [*command, str(path), "--json"])
    assert refused.exit_code == 2
    message = json.loads(refused.stdout)["error"]["message"]
    assert told in message
    assert "Did you mean" not in message


def test_one_that_cannot_be_opened_closes_the_others(toy_rows: Bundle, tmp_path: Path) -> None:
    """Nobody is left subscribed, and the reason is told."""
    closed: list[int] = []

    class Good(SourceConfig):
        kind: str = "good"

        def open(self) -> Any:
            opened = Synthetic.model_validate(source(1)).open()
            opened.close = lambda: closed.append(1)  # type: ignore[method-assign]
            return opened

    class Gone(SourceConfig):
        kind: str = "gone"

        def open(self) -> Any:
            raise StreamLost("no such device")

    config = parse_as(ManyConfig, settings(toy_rows, tmp_path), "test")
    tried = [Good(), Gone(), Good()]
    changed = [one.model_copy(update={"source": new}) for one, new in zip(config.sources, tried, strict=True)]
    with pytest.raises(StreamLost, match="no such device"):
        run_many(config.model_copy(update={"sources": tuple(changed)}))
    assert closed == [1, 1]
