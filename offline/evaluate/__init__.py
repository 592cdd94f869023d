"""Scores bundles on recordings, through the engine's own pipeline.

``play`` a recording, ``score`` what was said about it; `offline.evaluate.run` does both for any number of
bundles, and `offline.evaluate.report` and `offline.evaluate.plots` tell it.
"""

from offline.evaluate.played import Played, chunks, play
from offline.evaluate.protocol import Protocol, Trials, Windows
from offline.evaluate.scores import Scores, score

__all__ = ["Played", "Protocol", "Scores", "Trials", "Windows", "chunks", "play", "score"]
