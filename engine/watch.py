"""Tells the person at the screen what happens to a stream, as it happens and once each."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable
from dataclasses import asdict

from engine.stepping import Stepping, T
from streamer.acquire import Feed
from streamer.dsp.quality import CURE, TOO_LARGE

CHUNKS = 50  # so many show what the device sends at once
EVERY_S = 1.0  # a burst of small faults is one line

WORDS = {
    "samples_lost": "samples lost in holes too long to bridge: the model starts afresh",
    "dropped": "samples dropped because the computation was late",
    "repaired": "missing samples bridged",
    "non_finite": "values that were not finite replaced",
    "glitches": "values replaced that no electrode gives, more than 100 mV from the last",
    "duplicates": "samples dropped because they came twice",
    "reconnects": "reconnection",
    "clock_steps": "step back of the sender's clock",
}


class Watch:
    """Compares counters and channel verdicts with the last look, and says what is new.

    Parameters
    ----------
    feed : Feed
        Its counters are watched.
    pipeline : Stepping
        Its channel verdicts are watched.
    say : callable
        Receives the lines.
    results : str
        What comes out, for people.
    live : bool
        False for a file: its channels are looked at once a second of signal, which may pass in no time, and
        what was wrong with one is said once, not each time it comes and goes.
    """

    def __init__(
        self,
        feed: Feed,
        pipeline: Stepping[T],
        say: Callable[[str], None],
        results: str = "decisions",
        *,
        live: bool = True,
    ) -> None:
        self._feed, self._pipeline, self._say, self._results = feed, pipeline, say, results
        self._live = live
        self._counted = dict.fromkeys(WORDS, 0)
        self._bad: dict[str, str] = {}
        self._said: set[tuple[str, str]] = set()
        self._unit_doubted = False
        self._due = float("-inf")
        self._unseen_s = 0.0
        self._rows: list[int] = []

    def look(self, now: float, rows: int) -> None:
        """Say what is new, at most once a second; ``now`` in seconds, ``rows`` samples came."""
        self._look_at_chunk(rows)
        if not self._live:
            self._look_at_file(rows)
        if now < self._due:
            return
        self._due = now + EVERY_S
        self._look_at_counters()
        if self._live:
            self._look_at_channels()

    def _look_at_chunk(self, rows: int) -> None:
        """Say once if decisions wait for the rest of the chunk that a hop ends in."""
        if len(self._rows) >= CHUNKS:
            return
        self._rows.append(rows)
        if len(self._rows) < CHUNKS:
            return
        chunk, sfreq = int(statistics.median(self._rows)), self._feed.info.sfreq
        hop = self._pipeline.hop_s * sfreq
        if chunk > 1 and hop % chunk:
            self._say(
                f"chunks of {chunk} samples do not divide the hop of {hop:g}: {self._results} are "
                f"some {500 * (chunk - 1) / sfreq:.0f} ms older than they could be"
            )

    def stalled(self, seconds: float) -> None:
        """Say that nothing comes."""
        self._say(f"no samples from {self._feed.info.name!r} for {seconds:.1f} s: waiting")

    def _look_at_counters(self) -> None:
        counted = asdict(self._feed.counters)
        for key, words in WORDS.items():
            if counted[key] > self._counted[key]:
                self._say(f"{counted[key] - self._counted[key]} {words}")
                self._counted[key] = counted[key]

    def _look_at_channels(self) -> None:
        bad = self._pipeline.bad_channels
        if bad == self._bad:
            return
        self._bad = dict(bad)
        if bad:
            self._say_bad(bad.items())
        else:
            self._say("all channels are good again")

    def _look_at_file(self, rows: int) -> None:
        """Say what has been wrong with channels since the last look, unless it was said before."""
        self._unseen_s += rows / self._feed.info.sfreq
        if self._unseen_s < EVERY_S:
            return
        self._unseen_s = 0.0
        found = {(name, reason) for name, reasons in self._pipeline.bad_s.items() for reason in reasons}
        new = found - self._said
        if new:
            self._said |= found
            self._say_bad(new)

    def _say_bad(self, channels: Iterable[tuple[str, str]]) -> None:
        found = sorted(channels)
        self._say(f"bad channels: {', '.join(f'{name} ({reason})' for name, reason in found)}")
        if not self._unit_doubted and any(reason == TOO_LARGE for _, reason in found):
            self._unit_doubted = True
            info = self._feed.info
            self._say(f"is {info.unit} the unit of {info.name!r}? If this goes on, {CURE}")
