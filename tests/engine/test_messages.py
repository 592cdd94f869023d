"""What can be wrong with a stream, a config or a bundle: one clear message each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import pytest
from toy_bundle import CHANNELS

from engine.config import RunConfig, parse, read
from engine.live import CHANGED, LOST, Observer, run_config
from streamer.errors import BciError, EndOfStream, StreamLost
from streamer.types import Chunk, Decision, Marker, StreamInfo, make_chunk

GOOD = StreamInfo("cap", "cap-1", "EEG", 160.0, CHANNELS, ("eeg",) * len(CHANNELS), "uV")


class Cap:
    """A headset that plays what it is told to; its config and its source in one."""

    live = False
    n_times = None

    def __init__(
        self,
        info: StreamInfo = GOOD,
        spoil: Callable[[np.ndarray], None] | None = None,
        n_times: int = 1600,
    ) -> None:
        self.info = info
        self._data = (
            np.random.default_rng(0).normal(scale=20, size=(n_times, info.n_chans)).astype(np.float32)
        )
        if spoil:
            spoil(self._data)
        self._row = 0
        self.dies_at: int | None = None
        self.rate = info.sfreq

    def open(self) -> Self:
        return self

    def read(self, timeout_s: float) -> Chunk | None:
        if self.dies_at is not None and self._row >= self.dies_at:
            raise StreamLost("Stream 'cap' is gone and did not come back within 30 s. Is the device on?")
        if self._row >= len(self._data):
            raise EndOfStream("over")
        rows = slice(self._row, self._row + 16)
        self._row += 16
        times = np.arange(rows.start, rows.stop) / self.rate
        return make_chunk(self._data[rows], rows.start, times)

    def markers(self) -> tuple[Marker, ...]:
        return ()

    def close(self) -> None:
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        return None


def config(bundle: Path, cap: Cap) -> RunConfig:
    """Return a run of the toy bundle on a cap."""
    parsed = parse({"source": {"kind": "lsl"}, "bundle": str(bundle)}, "test")
    return parsed.model_copy(update={"source": cap})


def named(*names: str) -> StreamInfo:
    return replace(GOOD, ch_names=names, ch_types=("eeg",) * len(names))


@pytest.mark.parametrize(
    ("info", "said"),
    [
        pytest.param(replace(GOOD, sfreq=50.0), "runs at 50 Hz, the bundle needs 160 Hz", id="wrong rate"),
        pytest.param(replace(GOOD, unit="unknown"), "'unknown'", id="wrong unit"),
        pytest.param(named(*"abcdefgh"), "C3, Cz, C4", id="channel names"),
        pytest.param(named("C3", "C4", "Cz"), "at least 5 of 8", id="too few channels"),
    ],
)
def test_a_stream_that_does_not_fit(toy_folder: Path, info: StreamInfo, said: str) -> None:
    """It is refused before a sample flows; stream, bundle and reason are named."""
    with pytest.raises(BciError) as error:
        run_config(config(toy_folder, Cap(info)))
    assert "'cap'" in str(error.value)
    assert "toy 1" in str(error.value)
    assert said in str(error.value)


def spoil_some(data: np.ndarray) -> None:
    data[800:805, 2] = np.nan


def spoil_channels(data: np.ndarray) -> None:
    data[400:, :3] = np.nan


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        pytest.param(spoil_some, "5 values that were not finite replaced", id="a few NaN"),
        pytest.param(spoil_channels, "bad channels: C3 (flat), C4 (flat), Cz (flat)", id="channels of NaN"),
    ],
)
def test_values_that_are_not_finite(toy_folder: Path, spoil: Callable[[np.ndarray], None], said: str) -> None:
    """They are replaced, counted and told; where too much is missing nothing is decided."""
    lines: list[str] = []
    report = run_config(config(toy_folder, Cap(spoil=spoil)), say=lines.append, clock=ticking())
    assert said in lines
    assert report["non_finite"] > 0
    assert (report["invalid"] > 50) == (spoil is spoil_channels)


def test_a_wild_value_reaches_no_filter(toy_folder: Path) -> None:
    """One sample of 1e30 is told, counted, and changes no more than one that is missing."""

    def spoil(value: float) -> Callable[[np.ndarray], None]:
        def change(data: np.ndarray) -> None:
            data[800, 2] = value

        return change

    said: list[list[Decision]] = []
    for value in (1e30, np.nan):
        heard: list[Decision] = []
        lines: list[str] = []
        observed = Observer(heard.append)
        cap = Cap(spoil=spoil(value))
        report = run_config(config(toy_folder, cap), say=lines.append, extra=observed, clock=ticking())
        said.append(heard)
        assert (report["glitches"], report["non_finite"]) == ((1, 0) if value == 1e30 else (0, 1))
        assert any("no electrode gives" in line for line in lines) == (value == 1e30)
    assert said[0] == said[1]


def test_a_unit_a_thousand_times_too_large_is_told(toy_folder: Path) -> None:
    """Nothing is decided on once three seconds were heard, and it is said once what to do about it."""

    def spoil(data: np.ndarray) -> None:
        data *= 1000

    lines: list[str] = []
    report = run_config(config(toy_folder, Cap(spoil=spoil)), say=lines.append, clock=ticking())
    assert report["invalid"] > 100
    assert set(report["bad_channels"].values()) == {"too large"}
    (told,) = [line for line in lines if "is uV the unit of 'cap'?" in line]
    assert "`unit:` in the source block" in told
    assert "--uv-per-count" in told


EXTRA = ("Iz", "AUX1", "AUX2", "AUX3", "AUX4")


@pytest.mark.parametrize("value", [np.nan, 0.0], ids=["NaN", "flat"])
def test_an_unused_electrode_may_be_dead(toy_folder: Path, value: float) -> None:
    """Channels that the bundle does not use neither reject decisions nor hide those that it does."""

    def spoil(data: np.ndarray) -> None:
        data[:, len(CHANNELS) :] = value

    report = run_config(config(toy_folder, Cap(named(*CHANNELS, *EXTRA), spoil)))
    assert report["invalid"] == 4  # warm-up only
    assert report["bad_channels"] == {}


def test_used_electrodes_do_not_hide_among_unused(toy_folder: Path) -> None:
    """Three of the eight channels that count are flat: too many, however many others are fine."""

    def spoil(data: np.ndarray) -> None:
        data[:, :3] = 0.0

    lines: list[str] = []
    report = run_config(config(toy_folder, Cap(named(*CHANNELS, *EXTRA), spoil)), say=lines.append)
    assert report["invalid"] > 140
    assert report["bad_channels"] == {"C3": "flat", "Cz": "flat", "C4": "flat"}


def test_a_channel_that_was_bad_is_not_forgotten(toy_folder: Path) -> None:
    """Of a file that passes in no time, too, it is said and reported what was flat, and for how long."""

    def spoil(data: np.ndarray) -> None:
        data[480:960, 0] = 7.0

    lines: list[str] = []
    report = run_config(config(toy_folder, Cap(spoil=spoil)), say=lines.append, clock=lambda: 0.0)
    assert "bad channels: C3 (flat)" in lines
    assert report["bad_channels"] == {}
    assert report["bad_channels_s"] == {"C3": {"flat": 2.25}}  # 3 s, judged by the last second of each


def test_a_wrong_rate_of_delivery(toy_folder: Path) -> None:
    """A live stream that says 160 Hz and delivers 320 ends the run with a message."""
    cap = Cap(n_times=3200)
    cap.live = True
    cap.rate = 320.0
    lines: list[str] = []
    report = run_config(config(toy_folder, cap), say=lines.append)
    assert report["ended"] == CHANGED
    assert "says 160 Hz and delivers 320" in report["reason"]


def test_a_dead_stream(toy_folder: Path) -> None:
    """It ends the run with a message, and the report of what was decided until then."""
    cap = Cap()
    cap.dies_at = 800
    lines: list[str] = []
    report = run_config(config(toy_folder, cap), say=lines.append)
    assert report["ended"] == LOST
    assert report["decisions"] == 80
    assert "is gone and did not come back" in lines[-1]


def test_a_bad_yaml(tmp_path: Path) -> None:
    """File, place and fault."""
    path = tmp_path / "run.yaml"
    path.write_text("source: {kind: lsl\nbundle: [")
    with pytest.raises(BciError, match=r"run\.yaml is not YAML: .*line 2"):
        read(path)


def test_a_truncated_bundle(toy_writer: Callable[..., Path]) -> None:
    """File, size, both hashes, and what to do."""
    folder = toy_writer()
    graph = folder / "step.onnx"
    graph.write_bytes(graph.read_bytes()[:200])
    with pytest.raises(BciError, match=r"step\.onnx \(200 bytes\) .* Damaged, cut short or changed"):
        run_config(config(folder, Cap()))


def ticking() -> Callable[[], float]:
    """Return a clock that advances by a second at each look."""
    now = iter(range(1_000_000))
    return lambda: float(next(now))


def test_the_cap_is_fine_by_itself(toy_folder: Path) -> None:
    """What the other tests break works when nothing is broken."""
    lines: list[Any] = []
    report = run_config(config(toy_folder, Cap()), say=lines.append, clock=ticking())
    assert report["ended"] == "end of stream"
    assert report["decisions"] == 160
    assert not [line for line in lines if "bad" in line or "finite" in line]
