"""Fits a stream to a bundle's input contract, where that is sound, and says what it did."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from engine.bundle import Bundle, InputContract
from streamer.chain import Chain
from streamer.dsp import StepConfig
from streamer.dsp.montage import Config as Montage
from streamer.dsp.resample import Config as Resample
from streamer.dsp.scale import Config as Scale
from streamer.errors import BundleError, StreamMismatch
from streamer.types import StreamInfo

MIN_RATE_SHARE = 0.5  # below half the model's rate the stream lacks most of the band the model was trained on


@dataclass(frozen=True, slots=True)
class Fit:
    """How a stream is made to fit a bundle.

    Attributes
    ----------
    chain : Chain
        Every DSP step from the raw stream to the model's input.
    notes : tuple of str
        What had to be adapted, for people.
    interpolated : tuple of str
        Channels of the contract that the stream lacks, made of others.
    """

    chain: Chain
    notes: tuple[str, ...]
    interpolated: tuple[str, ...] = ()

    @property
    def ch_names(self) -> tuple[str, ...]:
        """Channels that the model is fed, in order."""
        return self.chain.info.ch_names


def fit(bundle: Bundle, info: StreamInfo, quality: StepConfig | None = None) -> Fit:
    """Return the signal chain from this stream to this bundle; see `fit_contract`."""
    return fit_contract(bundle.manifest.input, f"bundle {bundle.label}", info, quality)


def fit_contract(
    contract: InputContract, label: str, info: StreamInfo, quality: StepConfig | None = None
) -> Fit:
    """Return the signal chain from this stream to what fulfils this contract.

    The order is: unit, montage, quality checks (on the model's channels at the device's rate), rate, then the
    bundle's own list.  A bundle for any montage takes every channel of its kind and no others: a trigger
    beside the electrodes is no signal.

    Parameters
    ----------
    label : str
        What it is that takes the signal, for messages: ``"bundle motor-imagery 1.0"``.

    Raises
    ------
    StreamMismatch
        The stream does not fit; the message lists every reason.
    BundleError
        The contract's own list does not lead to the channels and the rate that it promises.
    """
    notes: list[str] = []
    reasons: list[str] = []
    steps: list[StepConfig] = []

    if info.stype.upper() != contract.stype.upper():
        reasons.append(f"it carries {info.stype}, the bundle decodes {contract.stype}")
    if info.sfreq < MIN_RATE_SHARE * contract.sfreq:
        reasons.append(f"it runs at {info.sfreq:g} Hz, the bundle needs {contract.sfreq:g} Hz")
    current = info
    interpolated: tuple[str, ...] = ()
    for config, note in _steps(contract, info, quality):
        try:
            step = config.build(current)
        except StreamMismatch as error:
            reasons.append(str(error))
            continue
        steps.append(config)
        current = step.info
        interpolated += getattr(step, "interpolated", ())
        notes += [note] if note else _montage_notes(step)
    if reasons:
        raise StreamMismatch(
            f"Stream {info.name!r} ({info.n_chans} channels, {info.sfreq:g} Hz, {info.unit}) does not fit "
            f"{label}:\n" + "\n".join(f"  - {reason}" for reason in reasons)
        )
    chain = Chain([*steps, *contract.dsp], info)
    n_inputs = contract.n_inputs if contract.ch_names else len(_channels(contract, info)[0])
    if chain.info.n_chans != n_inputs or chain.info.sfreq != contract.sfreq:
        raise BundleError(
            f"{label[0].upper()}{label[1:]}: its DSP list ends in {chain.info.n_chans} channels at "
            f"{chain.info.sfreq:g} Hz, its graph takes {n_inputs} at {contract.sfreq:g}."
        )
    return Fit(chain, tuple(notes), interpolated)


def _steps(
    contract: InputContract, info: StreamInfo, quality: StepConfig | None
) -> Iterator[tuple[StepConfig, str | None]]:
    """Yield what stands before the contract's own list, each with what to say of it."""
    if info.unit != contract.unit:
        yield Scale(unit=contract.unit), f"scaled from {info.unit} to {contract.unit}"
    wanted, present = _channels(contract, info)
    if tuple(info.ch_names) != wanted:
        yield Montage(ch_names=wanted, min_present=present), None
    if quality is not None:  # after the montage: an electrode that is not used may be as dead as it likes
        yield quality, None
    if info.sfreq != contract.sfreq:
        yield Resample(sfreq=contract.sfreq), f"resampled from {info.sfreq:g} to {contract.sfreq:g} Hz"


def _channels(contract: InputContract, info: StreamInfo) -> tuple[tuple[str, ...], int]:
    """Return the channels that the model is to be fed, and how many must be there."""
    if not contract.per_channel:
        return contract.ch_names, contract.min_present
    kind = contract.stype.lower()
    found = tuple(name for name, ch_type in zip(info.ch_names, info.ch_types, strict=True) if ch_type == kind)
    return found or info.ch_names, len(found or info.ch_names)


def _montage_notes(step: object) -> list[str]:
    """Say which channels were interpolated, if this step is one that does so."""
    missing = getattr(step, "interpolated", None)
    if missing is None:
        return []
    return [
        f"{len(missing)} channels interpolated: {', '.join(missing)}"
        if missing
        else "channels picked by name"
    ]
