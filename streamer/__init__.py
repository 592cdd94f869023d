"""Samples and time: sources, clock, repair, rings, DSP steps and sinks.

Needs NumPy, SciPy and the device libraries; knows nothing of models.
"""

from streamer.types import Chunk, Decision, Marker, StreamInfo

__all__ = ["Chunk", "Decision", "Marker", "StreamInfo"]
