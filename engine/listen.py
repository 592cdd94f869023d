"""`bcistream listen`: a stream of codes turned back into a waveform, frame by frame, at the far end."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from engine.backends import Backend
from engine.bundle import Bundle, load
from engine.config import ListenConfig
from engine.pipeline import Receiver
from engine.session import Session, drive, greeting, interruptible, report
from engine.stepping import Stepping
from engine.telemetry import FrameCounts
from engine.token_stream import TAIL, TokenInfo, channel_major, from_lsl, next_frame
from streamer.acquire import feed
from streamer.chain import Chain
from streamer.clock import Clock
from streamer.errors import StreamMismatch
from streamer.lsl_info import to_lsl
from streamer.lsl_outlet import Outlet
from streamer.repair import Repair
from streamer.sources.lsl import LslSource
from streamer.types import Chunk, StreamInfo

RATE_TOLERANCE = 1e-6  # a frame rate such as 250 / 12 Hz is no finite decimal


@dataclass(frozen=True, slots=True)
class Wave:
    """The waveform of one frame.

    Attributes
    ----------
    data : ndarray, shape (n_times, n_chans), float32
        In the unit of the signal that was coded.
    times : ndarray, shape (n_times,), float64
        Stamps, s on the local LSL clock: that of the frame is its last sample's.
    valid : bool
        Whether nothing under the frame was repaired or bad at the sender.
    """

    data: NDArray[np.float32]
    times: NDArray[np.float64]
    valid: bool

    @property
    def time(self) -> float:
        """Stamp of the last sample."""
        return float(self.times[-1])


class Listener(Stepping[Wave]):
    """Steps a decoder over the rows of a token stream.

    The decoder starts afresh where the sender's model did, where rows are missing, and where the stream was
    lost and came back; each is a reset, and counted.

    Parameters
    ----------
    bundle : Bundle
        The decoder, of the size of the stream: see `Bundle.sized`.
    backend : Backend
        Its graph, compiled.
    info : StreamInfo
        The token stream.
    tokens : TokenInfo
        What its rows mean.
    recheck : callable
        Called at a discontinuity, where the stream may have come back as another one; raises
        `StreamMismatch` if it has.

    Attributes
    ----------
    wave : StreamInfo
        What comes out.
    missing : int
        Frames that were sent and did not arrive, as far as their count tells.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        info: StreamInfo,
        tokens: TokenInfo,
        recheck: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(bundle, backend, info, Chain([], info))
        signal, n = bundle.signal, len(tokens.ch_names)
        self.tokens = tokens
        self.wave = _wave_info(tokens, info)
        self.missing = 0
        self._order = channel_major(n, signal.n_codebooks, gain=signal.n_gains is not None)
        self._output = signal.output
        self._recheck = recheck
        ages = np.arange(tokens.hop - 1, -1, -1) + bundle.manifest.graph.delay * tokens.hop
        self._ages = ages / tokens.sfreq
        self._frame: int | None = None

    def process(self, chunk: Chunk) -> Iterator[Wave]:
        """Yield the waveform of every row."""
        if chunk.discontinuity:
            self._recheck()
        for row in range(len(chunk)):
            frame, invalid = int(chunk.data[row, -2]), chunk.data[row, -1]
            broken = self._breaks(frame) or (chunk.discontinuity and row == 0)
            yield self._decoded(_codes(chunk, row, self._order, broken), not invalid)

    def describe(self) -> dict[str, Any]:
        """Return what a reader of the waveform may want to know."""
        tokens, manifest = self.tokens, self.bundle.manifest
        return {
            "bundle": manifest.name,
            "version": manifest.version,
            "codec": tokens.codec,
            "coded_by": f"{tokens.bundle} {tokens.version}",
            "channels": len(tokens.ch_names),
            "sfreq": tokens.sfreq,
            "unit": self.wave.unit,
            "frames_per_s": round(tokens.rate, 6),
            "algorithmic_delay": self.delays(),
        }

    def _breaks(self, frame: int) -> bool:
        """Note the count of a row; say whether it does not follow the row before."""
        expected = next_frame(self._frame) if self._frame is not None else frame
        self._frame = frame
        if frame == expected:
            return False
        if frame > expected:
            self.missing += frame - expected
        return True

    def _decoded(self, chunk: Chunk, valid: bool) -> Wave:
        ((frame, outputs),) = self.steps(chunk)
        signal = outputs[self._output].reshape(-1, self.tokens.hop)  # (C, hop)
        return Wave(np.ascontiguousarray(signal.T), frame.time - self._ages, valid)


def check(bundle: Bundle, tokens: TokenInfo, name: str) -> None:
    """Refuse a token stream that this decoder cannot decode.

    Raises
    ------
    BundleError
        The bundle is no decoder.
    StreamMismatch
        The stream carries latents, or codes of another codec; the message lists every reason.
    """
    signal, contract = bundle.signal, bundle.manifest.input
    if tokens.publish != "codes":
        raise StreamMismatch(
            f"Stream {name!r} carries latents, which nothing turns back into a waveform. Let the sender "
            "publish codes."
        )
    pairs = [
        ("codec", tokens.codec, signal.codec),
        ("codebooks", tokens.n_codebooks, signal.n_codebooks),
        ("codes per codebook", tokens.codebook_size, signal.codebook_size),
        ("gain codes", tokens.n_gains, signal.n_gains),
        ("signal type", tokens.stype.upper(), contract.stype.upper()),
        ("unit", tokens.unit, signal.unit),
    ]
    reasons = [f"{what}: {theirs} in the stream, {ours} in the bundle" for what, theirs, ours in pairs
               if theirs != ours]  # fmt: skip
    if abs(tokens.rate / contract.sfreq - 1) > RATE_TOLERANCE or tokens.sfreq != signal.sfreq:
        reasons.append(
            f"rate: {tokens.sfreq:g} Hz in frames of {tokens.hop} in the stream, {signal.sfreq:g} Hz at "
            f"{contract.sfreq:g} frames a second in the bundle"
        )
    if not contract.per_channel and tokens.ch_names != contract.ch_names:
        reasons.append(
            f"channels: {', '.join(tokens.ch_names)} in the stream, {', '.join(contract.ch_names)}"
        )
    if reasons:
        raise StreamMismatch(
            f"Stream {name!r} was coded by {tokens.bundle} {tokens.version}; bundle {bundle.label} does not "
            "decode it:\n" + "\n".join(f"  - {reason}" for reason in reasons) + "\nListen with the decoder "
            "that was exported from the same training."
        )


class WaveStream(Outlet):
    """Publishes the waveform over LSL."""

    def __init__(self, info: StreamInfo) -> None:
        super().__init__(to_lsl(info))

    def write(self, wave: Wave) -> None:
        """Send the samples of one frame on."""
        self.push_rows(wave.data, wave.times)


def run_listen(
    config: ListenConfig,
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    extra: Receiver[Wave] | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Turn codes back into a waveform until they end; parameters as for `engine.live.run_config`.

    Returns
    -------
    dict
        The report: what was decoded, what was lost, how long it took.
    """
    stop = stop or threading.Event()
    bundle = load(config.bundle)
    _ = bundle.signal  # refuses a bundle for another command before a stream is waited for
    with ExitStack() as stack:
        source = stack.enter_context(config.source.open())
        tokens = from_lsl(source.described)
        check(bundle, tokens, source.info.name)
        bundle = bundle.sized(tokens.ch_names)
        backend = stack.enter_context(config.backend.open(bundle))
        listener = Listener(bundle, backend, source.info, tokens, _SameCodes(source, tokens))
        stack.enter_context(interruptible(stop))  # from here on there is something to report
        wave = replace(listener.wave, name=config.name, source_id=f"{config.name}-signal")
        receivers: list[Receiver[Wave]] = [stack.enter_context(WaveStream(wave))]
        receivers += [extra] if extra else []
        # Stamps were fitted by the sender, and a code between two codes means nothing: neither is mended.
        clock_of_sender = Clock(source.info.sfreq, stamped=False)
        repair = Repair(source.info, 0.0)
        samples = stack.enter_context(feed(source, clock_of_sender, repair, late=config.late))
        counts = FrameCounts(listener.hop_s)
        session: Session[Wave] = Session(listener, samples, receivers, counts, source.live, backend.name)
        for line in greeting(session, f"{tokens.sfreq:g} Hz of {len(tokens.ch_names)} channels come out"):
            say(line)
        ended = drive(session, config, stop=stop, seconds=seconds, say=say, clock=clock, results="samples")
    figures = {"frames": counts.frames, "invalid": counts.invalid, "missing": listener.missing}
    return report(session, ended, figures)


class _SameCodes:
    """Looks, wherever the stream breaks off, whether it still carries the codes that it did."""

    def __init__(self, source: LslSource, tokens: TokenInfo) -> None:
        self._source, self._tokens = source, tokens

    def __call__(self) -> None:
        """Raise StreamMismatch if the stream that was gone came back with others."""
        now, was = from_lsl(self._source.described), self._tokens
        if now != was:
            raise StreamMismatch(
                f"The stream came back coded by {now.bundle} {now.version} (codec {now.codec}); it was "
                f"{was.bundle} {was.version} (codec {was.codec}). Start again to use it as it is now."
            )


def _codes(chunk: Chunk, row: int, order: NDArray[np.intp], broken: bool) -> Chunk:
    """Return one row in the decoder's order, as a chunk."""
    rows = slice(row, row + 1)
    data = chunk.data[rows, : -len(TAIL)][:, order]
    return Chunk(data, chunk.index + row, chunk.times[rows], chunk.valid[rows], broken)


def _wave_info(tokens: TokenInfo, info: StreamInfo) -> StreamInfo:
    kinds = (tokens.stype.lower(),) * len(tokens.ch_names)
    return StreamInfo(
        info.name, info.source_id, tokens.stype, tokens.sfreq, tokens.ch_names, kinds, tokens.unit
    )
