"""What is decoded frame by frame is what the codes decode to, wherever they came from."""

from __future__ import annotations

import queue
import threading
import uuid
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from toy_codec import CODEBOOK_SIZE, CODEC, HOP, N_CODEBOOKS, N_GAINS, SFREQ, decoded, write_decoder

from engine.backends.onnxruntime import Config as OnnxRuntime
from engine.bundle import Bundle, load
from engine.config import ListenConfig, parse_as
from engine.listen import Listener, Wave, check, run_listen
from engine.session import CHANGED, LOST, Observer
from engine.token_stream import LAST_FRAME, TokenInfo, to_lsl
from streamer.errors import BundleError, ConfigError, StreamMismatch, StreamNotFound
from streamer.sources.lsl import Config as Lsl
from streamer.types import Chunk, StreamInfo

NAMES = ("C3", "Cz", "C4")
N = 40
PATIENCE_S = 15.0
TOKENS = TokenInfo(
    bundle="toy-codec", version="1", publish="codes", ch_names=NAMES, stype="EEG", unit="uV", sfreq=SFREQ,
    hop=HOP, codec=CODEC, n_codebooks=N_CODEBOOKS, codebook_size=CODEBOOK_SIZE, n_gains=N_GAINS,
)  # fmt: skip
INFO = StreamInfo(
    "codes", "codes-1", "CODES", TOKENS.rate, TOKENS.columns, ("misc",) * len(TOKENS.columns), "unknown"
)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return load(write_decoder(tmp_path_factory.mktemp("codec") / "decoder"))


@pytest.fixture
def listener(bundle: Bundle) -> Listener:
    sized = bundle.sized(NAMES)
    return Listener(sized, OnnxRuntime().open(sized), INFO, TOKENS)


def drawn(n: int = N) -> tuple[np.ndarray, np.ndarray]:
    """Return codes (F, C, K) and gains (F, C)."""
    rng = np.random.default_rng(5)
    codes = rng.integers(0, CODEBOOK_SIZE, (n, len(NAMES), N_CODEBOOKS))
    return codes, rng.integers(0, N_GAINS, (n, len(NAMES)))


def rows(frames: Sequence[int], invalid: Sequence[int] | None = None) -> np.ndarray:
    """Return rows as they arrive, counted as told: float32, (F, columns)."""
    n = len(frames)
    codes, gain = drawn(n)
    tail = [np.array(frames), np.zeros(n) if invalid is None else np.array(invalid)]
    return np.column_stack([codes.reshape(n, -1), gain, *tail]).astype(np.float32)


def play(made: Listener, data: np.ndarray, cuts: Sequence[int] = (), broken: int | None = None) -> list[Wave]:
    """Decode rows that arrive in these parts; the one that starts at ``broken`` is a discontinuity."""
    waves = []
    for a, b in pairwise([0, *sorted(cuts), len(data)]):
        times = np.arange(a, b) / TOKENS.rate
        waves += made.process(Chunk(data[a:b], a, times, np.ones(b - a, bool), a == broken))
    return waves


def signal(waves: list[Wave]) -> np.ndarray:
    return np.concatenate([wave.data for wave in waves])


@settings(deadline=None, max_examples=20)
@given(cuts=st.lists(st.integers(0, N), max_size=20))
def test_any_chunking_decodes_to_the_same_waveform(bundle: Bundle, cuts: list[int]) -> None:
    """However the rows arrive, the samples are those of the codes decoded in one piece, bit for bit."""
    sized = bundle.sized(NAMES)
    with OnnxRuntime().open(sized) as backend:
        waves = play(Listener(sized, backend, INFO, TOKENS), rows(range(N)), cuts)
    assert np.array_equal(signal(waves), decoded(*drawn()))


def test_each_sample_has_its_own_age(listener: Listener) -> None:
    """The last sample of a frame has the frame's stamp, the others are a sample older each."""
    waves = play(listener, rows(range(3)))
    for k, wave in enumerate(waves):
        assert wave.time == k / TOKENS.rate
        assert np.allclose(np.diff(wave.times), 1 / SFREQ)
        assert wave.data.shape == (HOP, len(NAMES))


def test_the_sender_s_reset_resets_the_decoder(listener: Listener) -> None:
    """Where the count starts again the waveform is that of a fresh decoder, and that is counted."""
    waves = play(listener, rows([*range(15), *range(25)]))
    codes, gain = drawn()
    expected = np.concatenate([decoded(codes[:15], gain[:15]), decoded(codes[15:], gain[15:])])
    assert np.array_equal(signal(waves), expected)
    assert (listener.resets, listener.missing) == (1, 0)


def test_missing_rows_reset_the_decoder_and_are_counted(listener: Listener) -> None:
    """A count that jumps ahead is a hole: decoded from fresh behind it."""
    waves = play(listener, rows([*range(15), *range(18, 43)]))
    codes, gain = drawn()
    assert np.array_equal(signal(waves)[15 * HOP :], decoded(codes[15:], gain[15:]))
    assert (listener.resets, listener.missing) == (1, 3)


def test_a_stream_that_came_back_resets_the_decoder_once(listener: Listener) -> None:
    """A discontinuity is one reset, whether or not the count jumps with it."""
    waves = play(listener, rows([*range(15), *range(30, 55)]), cuts=[15], broken=15)
    codes, gain = drawn()
    assert np.array_equal(signal(waves)[15 * HOP :], decoded(codes[15:], gain[15:]))
    assert listener.resets == 1


def test_joining_late_and_counting_round_are_no_holes(listener: Listener) -> None:
    """The first row may have any count, and 32767 is followed by 1."""
    play(listener, rows([LAST_FRAME - 1, LAST_FRAME, 1, 2]))
    assert (listener.resets, listener.missing) == (0, 0)


def test_bad_signal_at_the_sender_is_known_here(listener: Listener) -> None:
    """A row whose share of invalid samples is not 0 decodes to a wave that is not valid."""
    waves = play(listener, rows(range(3), [0, 3, 0]))
    assert [wave.valid for wave in waves] == [True, False, True]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"codec": "f" * 16}, f"codec: {'f' * 16} in the stream, {CODEC} in the bundle"),
        ({"n_codebooks": 2}, "codebooks: 2 in the stream, 3"),
        ({"codebook_size": 64}, "codes per codebook: 64"),
        ({"n_gains": None}, "gain codes: None"),
        ({"hop": 10}, "rate: 250 Hz in frames of 10"),
        ({"sfreq": 200.0}, "rate: 200 Hz"),
        ({"stype": "EMG"}, "signal type: EMG"),
        ({"unit": "mV"}, "unit: mV"),
        ({"publish": "latent", "dim": 4}, "carries latents, which nothing turns back"),
    ],
)
def test_codes_of_another_codec_are_refused(bundle: Bundle, change: dict[str, Any], said: str) -> None:
    """The message says what differs, who coded it, and what to do."""
    with pytest.raises(StreamMismatch) as error:
        check(bundle, TOKENS.model_copy(update=change), "codes")
    assert said in str(error.value)
    assert "'codes'" in str(error.value)


def test_every_difference_is_listed(bundle: Bundle) -> None:
    """Two faults give two lines, and the right codec none."""
    check(bundle, TOKENS, "codes")
    with pytest.raises(StreamMismatch) as error:
        check(bundle, TOKENS.model_copy(update={"codec": "0" * 16, "n_codebooks": 8}), "codes")
    assert str(error.value).count("\n  - ") == 2
    assert "exported from the same training" in str(error.value)


def test_a_bundle_that_is_no_decoder_is_refused(toy_folder: Path) -> None:
    """Decisions cannot be listened to."""
    with pytest.raises(BundleError, match=r"puts out decisions.*a waveform from codes"):
        check(load(toy_folder), TOKENS, "codes")


def test_a_wrong_bundle_is_refused_before_a_stream_is_waited_for(
    toy_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody waits for a stream that could not be decoded anyway."""

    def waits(source: Lsl) -> None:
        raise AssertionError("it has waited")

    monkeypatch.setattr(Lsl, "open", waits)
    raw = {"source": {"name": "codes"}, "bundle": str(toy_folder)}
    with pytest.raises(BundleError, match="a waveform from codes are asked"):
        run_listen(parse_as(ListenConfig, raw, "test"))


@pytest.mark.usefixtures("lsl_session")
@pytest.mark.parametrize(("codec", "ended"), [(CODEC, LOST), ("e" * 16, CHANGED)])
def test_a_sender_that_comes_back_is_heard_unless_its_codes_are_others(
    bundle: Bundle, codec: str, ended: str
) -> None:
    """Of the same codec: a reset, and on. Another one under the same name: ended, not decoded."""
    name, waves = f"codes-{uuid.uuid4().hex[:8]}", queue.Queue[Wave]()
    raw = {"name": f"{name}-wave", "source": {"name": name, "recover_s": 2}, "bundle": str(bundle.folder)}
    with ThreadPoolExecutor(1) as pool:
        outlet = Sender(TOKENS, name)
        config = parse_as(ListenConfig, raw, "test")
        listening = pool.submit(run_listen, config, extra=Observer(waves.put))
        outlet.send_until(lambda: not waves.empty())
        outlet.close()
        while not waves.empty():
            waves.get()
        outlet = Sender(TOKENS.model_copy(update={"codec": codec}), name)
        outlet.send_until(lambda: listening.done() or not waves.empty())
        outlet.close()
        report = listening.result(PATIENCE_S)
    assert report["ended"] == ended
    assert report["reconnects"] == 1
    assert waves.empty() == (codec != CODEC)
    assert (codec in report["reason"]) == (codec != CODEC)


class Sender:
    """The other end, which may go and come back."""

    def __init__(self, tokens: TokenInfo, name: str) -> None:
        import pylsl

        self._outlet: Any = pylsl.StreamOutlet(to_lsl(tokens, name))
        self._rows = rows(range(round(PATIENCE_S * TOKENS.rate))).astype(int).tolist()
        self._pause = threading.Event()

    def send_until(self, enough: Callable[[], bool]) -> None:
        """Send rows at their rate; fails when it takes too long."""
        for row in self._rows:
            if enough():
                return
            self._outlet.push_sample(row)
            self._pause.wait(1 / TOKENS.rate)
        raise AssertionError("nothing was heard")

    def close(self) -> None:
        """Go."""
        self._outlet = None


@pytest.mark.usefixtures("lsl_session")
def test_a_stream_that_is_not_there_or_no_codes(bundle: Bundle) -> None:
    """Nobody of that name, or a stream of samples: said before anything is decoded."""
    import pylsl

    raw = {"source": {"name": "nobody", "timeout_s": 0.2}, "bundle": str(bundle.folder)}
    with pytest.raises(StreamNotFound, match="nobody"):
        run_listen(parse_as(ListenConfig, raw, "test"))
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo("plain-eeg", "EEG", 4, 250.0, "float32", "plain-eeg"))
    raw = {"source": {"name": "plain-eeg"}, "bundle": str(bundle.folder)}
    with pytest.raises(StreamMismatch, match=r"'plain-eeg' \(type EEG\) carries no codes"):
        run_listen(parse_as(ListenConfig, raw, "test"))
    del outlet


def test_only_lsl_can_be_listened_to(bundle: Bundle) -> None:
    """A source of another kind is refused when the YAML is read."""
    raw = {"source": {"kind": "recording", "path": "x.edf"}, "bundle": str(bundle.folder)}
    with pytest.raises(ConfigError, match=r"source\.kind: Input should be 'lsl'"):
        parse_as(ListenConfig, raw, "test")
