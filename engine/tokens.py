"""`bcistream tokens`: a biosignal as a stream of codes, or of latents, one row per frame."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from engine.adapt import Fit, fit
from engine.backends import Arrays, Backend
from engine.bitrate import BitRate
from engine.bundle import Bundle, load
from engine.config import TokensConfig
from engine.pipeline import Receiver
from engine.session import Session, drive, greeting, interruptible, report
from engine.stepping import Stepping, repair_for
from engine.telemetry import FrameCounts
from engine.token_files import open_file
from engine.token_stream import ALL, TokenFrame, TokenInfo, next_frame, to_lsl
from streamer.acquire import feed
from streamer.errors import BundleError
from streamer.lsl_outlet import Outlet
from streamer.types import Chunk, StreamInfo

Publish = Literal["codes", "latent"]


class Tokenizer(Stepping[TokenFrame]):
    """DSP chain, framer and tokenizer over one stream.

    Parameters
    ----------
    bundle : Bundle
        Of the size that is fed: see `Bundle.sized`.
    backend : Backend
        Its graph, compiled.
    info : StreamInfo
        The stream that will be fed.
    fitted : Fit
        How it fits the bundle.
    publish : "codes" or "latent"

    Attributes
    ----------
    tokens : TokenInfo
        What comes out.

    Raises
    ------
    BundleError
        The bundle has no such output.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, info: StreamInfo, fitted: Fit, publish: Publish = "codes"
    ) -> None:
        super().__init__(bundle, backend, info, fitted.chain, fitted.notes)
        self.tokens = describe(bundle, publish)
        self._outputs = outputs_of(bundle, publish)
        self._dtype = np.float32 if publish == "latent" else np.int64
        self._frame: int | None = None

    def process(self, chunk: Chunk) -> Iterator[TokenFrame]:
        """Yield the frames that this chunk completes."""
        for frame, outputs in self.steps(chunk):
            self._frame = next_frame(self._frame)
            yield TokenFrame(frame.index, frame.time, self._frame, frame.invalid, self._values(outputs))

    def reset(self) -> None:
        """Forget the signal: what follows is coded as after a fresh start, and counted from 0."""
        super().reset()
        self._frame = None

    def describe(self) -> dict[str, Any]:
        """Return what a reader of the codes may want to know."""
        tokens = self.tokens
        return {
            "bundle": tokens.bundle,
            "version": tokens.version,
            "publish": tokens.publish,
            "codec": tokens.codec,
            "channels": len(tokens.ch_names),
            "n_codebooks": tokens.n_codebooks,
            "codebook_size": tokens.codebook_size,
            "hop": tokens.hop,
            "sfreq": tokens.sfreq,
            "frames_per_s": round(tokens.rate, 6),
            "adapted": list(self.notes),
            "algorithmic_delay": self.delays(),
        }

    def _values(self, outputs: Arrays) -> NDArray[Any]:
        parts = [outputs[name].reshape(-1) for name in self._outputs]  # channel by channel
        return np.concatenate(parts).astype(self._dtype, copy=False)


def outputs_of(bundle: Bundle, publish: Publish) -> tuple[str, ...]:
    """Return the outputs that make up a row, in order; `BundleError` when the bundle has none."""
    if publish == "codes":
        tokens = bundle.tokens
        return (tokens.codes,) if tokens.gain is None else (tokens.codes, tokens.gain)
    latent = bundle.manifest.latent
    if latent is None:
        raise BundleError(f"Bundle {bundle.label} puts out no latent: leave out publish: latent.")
    return (latent,)


def describe(bundle: Bundle, publish: Publish) -> TokenInfo:
    """Return what a bundle of the size that is fed will publish."""
    manifest = bundle.manifest
    contract, tokens = manifest.input, manifest.tokens
    name = outputs_of(bundle, publish)[0]
    shape = next(tensor.shape for tensor in manifest.graph.outputs if tensor.name == name)
    n_rows = int(np.prod(shape[:-1]))  # (C, 1, K) or (1, 1, C, K) or (1, 1, K)
    codes = tokens if publish == "codes" else None
    return TokenInfo(
        bundle=manifest.name,
        version=manifest.version,
        publish=publish,
        ch_names=_names(contract.ch_names, n_rows),
        stype=contract.stype,
        unit=contract.unit,
        sfreq=contract.sfreq,
        hop=manifest.graph.hop,
        codec=codes.codec if codes else None,
        n_codebooks=codes.n_codebooks if codes else None,
        codebook_size=codes.codebook_size if codes else None,
        n_gains=codes.n_gains if codes else None,
        dim=shape[-1] if publish == "latent" else None,
    )


def _names(ch_names: tuple[str, ...], n_rows: int) -> tuple[str, ...]:
    """Return a name per row: the channel's, or a number where the model has merged the channels."""
    if n_rows == len(ch_names):
        return ch_names
    return (ALL,) if n_rows == 1 else tuple(f"{ALL}{i}" for i in range(1, n_rows + 1))


class TokenStream(Outlet):
    """Publishes frames over LSL, each stamped with the last sample of its frame."""

    def __init__(self, info: TokenInfo, name: str) -> None:
        super().__init__(to_lsl(info, name))

    def write(self, frame: TokenFrame) -> None:
        """Send one frame on."""
        self.push(frame.row, frame.time)


def run_tokens(
    config: TokensConfig,
    *,
    seconds: float | None = None,
    say: Callable[[str], None] = lambda line: None,
    extra: Receiver[TokenFrame] | None = None,
    stop: threading.Event | None = None,
    clock: Callable[[], float] | None = None,
) -> dict[str, Any]:
    """Turn a stream into codes until it ends; parameters as for `engine.live.run_config`.

    Returns
    -------
    dict
        The report: what was coded, what it costs, what was lost, how long it took.
    """
    stop = stop or threading.Event()
    bundle = load(config.bundle)
    outputs_of(bundle, config.publish)  # before anything is opened
    with ExitStack() as stack:
        source = stack.enter_context(config.source.open())
        fitted = fit(bundle, source.info, config.quality)
        bundle = bundle.sized(fitted.ch_names)
        backend = stack.enter_context(config.backend.open(bundle))
        tokenizer = Tokenizer(bundle, backend, source.info, fitted, config.publish)
        stack.enter_context(interruptible(stop))  # from here on there is something to report
        costs = BitRate(tokenizer.tokens, source.info) if config.publish == "codes" else None
        receivers: list[Receiver[TokenFrame]] = _receivers(config, tokenizer.tokens, stack)
        receivers += [receiver for receiver in (costs, extra) if receiver is not None]
        samples = stack.enter_context(feed(source, repair=repair_for(config, tokenizer), late=config.late))
        counts = FrameCounts(tokenizer.hop_s)
        session: Session[TokenFrame] = Session(
            tokenizer, samples, receivers, counts, source.live, backend.name
        )
        for line in _greeting(session, tokenizer.tokens, costs):
            say(line)
        ended = drive(
            session, config, stop=stop, seconds=seconds, say=say, clock=clock, results=config.publish
        )
    figures: dict[str, Any] = {"frames": counts.frames, "invalid": counts.invalid}
    if costs is not None:
        figures |= {"bit_s": costs.report(), "codes_used": costs.used()}
    return report(session, ended, figures)


def _receivers(config: TokensConfig, info: TokenInfo, stack: ExitStack) -> list[Receiver[TokenFrame]]:
    receivers: list[Receiver[TokenFrame]] = []
    if config.file is not None:
        receivers.append(stack.enter_context(open_file(config.file, info)))
    if config.lsl:
        receivers.append(stack.enter_context(TokenStream(info, config.name)))
    return receivers


def _greeting(session: Session[TokenFrame], info: TokenInfo, costs: BitRate | None) -> list[str]:
    lines = greeting(session, f"{info.rate:.4g} frames a second of {len(info.ch_names)} channels")
    if costs is not None:
        rate = costs.report()
        lines.append(
            f"rate     {rate['codes_per_channel']:g} bit/s a channel, gain {rate['gain_per_channel']:g}; "
            f"in all {rate['all_channels'] / 1e3:.4g} kbit/s, {rate['smaller_by']:g} times less than 16-bit "
            "samples"
        )
    return lines
