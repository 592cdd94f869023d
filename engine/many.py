"""Many streams through one compiled graph: each a row of it, all stepped together.

::

    stream 0 ─ chain ─ framer ─► row 0 ┐                      ┌─ decider 0 ─►
    stream 1 ─ chain ─ framer ─► row 1 ├─ one step of n rows ─┼─ decider 1 ─►
    ...                                ┘  (rows not ready     └─ ...
                                           keep their state)

Streams are not in step with each other.  A step is due as soon as every stream that took part in the last
one has its next frame ready, or when the first frame has waited for the others long enough, or at once when
one is behind, its next hop being there too: so one that is silent costs the others that wait once.  The
decisions of a stream are those of a `Pipeline` of its own but for the last bits of a matrix product, which
differ with the number of rows.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator, Sequence

from engine.backends import Arrays, Backend, Running
from engine.bundle import Bundle
from engine.calibration import Calibration
from engine.decision import DecisionSettings
from engine.faults import for_each
from engine.framer import Frame
from engine.pipeline import Pipeline
from streamer.dsp import StepConfig
from streamer.types import Chunk, Decision, StreamInfo

NEXT = 0.95  # of a hop after a frame: the next one is there, whatever the rounding of stamps
PATIENCE = 0.25  # of a hop: the share of it that a frame may wait for the others


class Many:
    """The pipelines of many streams over one runner.

    Parameters
    ----------
    bundle : Bundle
    backend : Backend
        Of ``bundle.batched(len(infos))``, compiled.
    infos : sequence of StreamInfo
        The streams; their places here are their numbers everywhere below.
    patience_s : float, optional
        How long a frame may wait for the others, s; a quarter of a hop by default.
    quality, decision
        As `Pipeline`, for all streams.
    calibrations : sequence of Calibration or None, optional
        One for each stream.
    names : sequence of str, optional
        What the streams are called in messages; their numbers, from 1, by default.

    Attributes
    ----------
    pipelines : list of Pipeline
        To be looked at, not to be fed.
    runner : Running
        The one that they share.
    steps : int
        Batched steps so far.

    Raises
    ------
    StreamMismatch, BundleError, ConfigError
        As `Pipeline`, of all streams that have one at once.
    """

    def __init__(
        self,
        bundle: Bundle,
        backend: Backend,
        infos: Sequence[StreamInfo],
        *,
        patience_s: float | None = None,
        quality: StepConfig | None = None,
        decision: DecisionSettings | None = None,
        calibrations: Sequence[Calibration | None] = (),
        names: Sequence[str] = (),
    ) -> None:
        self.runner = backend.runner()
        heads = calibrations or [None] * len(infos)

        def lane(row: int) -> _Lane:
            pipeline = Pipeline(
                bundle,
                backend,
                infos[row],
                quality=quality,
                decision=decision,
                calibration=heads[row],
                seat=_Row(self.runner, row),
            )
            return _Lane(row, pipeline)

        self._lanes = for_each(names or [str(row + 1) for row in range(len(infos))], lane)
        self.pipelines = [lane.pipeline for lane in self._lanes]
        self.runner.warm_up()
        self._patience = PATIENCE * self.pipelines[0].hop_s if patience_s is None else patience_s
        self._ready: list[_Lane] = []  # in the order that they became so
        self._missing = len(infos)  # awaited, and not ready
        self._behind = False  # one that is ready has another whole hop waiting
        self.steps = 0

    def push(self, stream: int, chunk: Chunk, now: float) -> None:
        """Take in what arrived on a stream at ``now``, s on any clock that `step` is told too."""
        lane = self._lanes[stream]
        lane.pending.append(chunk)
        if len(chunk):
            lane.newest = float(chunk.times[-1])
        if lane.frame is None:
            self._advance(lane, now)

    def waits(self, stream: int) -> bool:
        """Say whether a frame of this stream waits for its step: until then it needs no more samples."""
        return self._lanes[stream].frame is not None

    def end(self, stream: int) -> None:
        """Wait for this stream no more; what it sent is still decided on."""
        lane = self._lanes[stream]
        self._missing -= lane.awaited and lane.frame is None
        lane.awaited, lane.ended = False, True

    def due_in(self, now: float) -> float:
        """Return after how many seconds a step is due: 0 at once, infinity while no frame is ready."""
        if not self._ready:
            return math.inf
        if self._missing <= 0 or self._behind:
            return 0.0
        return max(0.0, self._ready[0].since + self._patience - now)

    def step(self, now: float) -> Iterator[tuple[int, Decision]]:
        """Do every step that is due; yield the stream and the decision of each frame.  Take all of them."""
        while self.due_in(now) == 0.0:
            yield from self._step(now)

    def _step(self, now: float) -> Iterator[tuple[int, Decision]]:
        ready, self._ready = self._ready, []
        outputs = self.runner.step([lane.row for lane in self._lanes if lane.frame is None])
        self.steps += 1
        for lane in ready:
            assert lane.frame is not None
            yield lane.row, lane.pipeline.decide(lane.frame, row_of(outputs, lane.row))
        for lane in self._lanes:
            lane.awaited = lane.frame is not None and not lane.ended
            lane.frame = None
        self._missing, self._behind = sum(lane.awaited for lane in self._lanes), False
        for lane in ready:
            self._advance(lane, now)

    def _advance(self, lane: _Lane, now: float) -> None:
        """Cut the lane's next frame, if it has come; the runner's input holds it until the step."""
        if lane.advance(now):
            self._ready.append(lane)
            self._missing -= lane.awaited
            self._behind |= lane.behind


class _Row:
    """A row of a runner that many streams share, as a runner of one row.

    Attributes
    ----------
    input : ndarray, shape (1, C, hop), float32
        A view.
    """

    def __init__(self, runner: Running, row: int) -> None:
        self._runner, self._row = runner, row
        self.input = runner.input[row : row + 1]

    def step(self) -> Arrays:
        """Run one hop over `input`, all other rows held; as `Running.step`."""
        others = [row for row in range(len(self._runner.input)) if row != self._row]
        return row_of(self._runner.step(others), self._row)

    def reset(self) -> None:
        """Set the row's state to zero."""
        self._runner.reset([self._row])


class _Lane:
    """One stream: what has come and is not cut yet, and the frame that waits for the step."""

    def __init__(self, row: int, pipeline: Pipeline) -> None:
        self.row, self.pipeline = row, pipeline
        self.pending: deque[Chunk] = deque()
        self.frame: Frame | None = None
        self.since = 0.0  # when it became ready
        self.newest = -math.inf  # stamp of the newest sample that has come
        self.awaited, self.ended = True, False
        self._frames: Iterator[Frame] = iter(())

    @property
    def behind(self) -> bool:
        """Whether the hop after the one that waits has come as well."""
        return self.frame is not None and self.newest - self.frame.time > NEXT * self.pipeline.hop_s

    def advance(self, now: float) -> bool:
        """Say whether the next frame is there; it is in the row, and stays there until asked again."""
        while True:
            self.frame = next(self._frames, None)
            if self.frame is not None:
                self.since = now
                return True
            if not self.pending:
                return False
            self._frames = self.pipeline.frames(self.pending.popleft())


def row_of(outputs: Arrays, row: int) -> Arrays:
    """Return one row of each output, (1, ...), as views."""
    return {name: array[row : row + 1] for name, array in outputs.items()}
