"""The project's exceptions.

::

    BciError                    every error raised on purpose; its message says what to do
    ├── ConfigError             a YAML file, a recipe, a command-line option
    ├── BundleError             a bundle that is damaged, foreign or incomplete
    ├── PlanError               a compiled plan that is damaged, foreign, or computes something else
    ├── RecordingError          a file that cannot be read as a recording
    ├── MissingDependency       an optional library is needed and not installed
    └── StreamError
        ├── StreamNotFound      no such live stream or device
        ├── StreamLost          it was there and is gone
        ├── StreamMismatch      it is there and does not fit what is asked of it
        └── EndOfStream         it ended as it should: a recording was played to its end

A message says what was expected, what came, where, and what to do about it.
"""

from __future__ import annotations


class BciError(Exception):
    """Every error that the project raises on purpose."""


class ConfigError(BciError):
    """A configuration that cannot be used; the message lists every fault with its path."""


class BundleError(BciError):
    """A bundle that is damaged, foreign or incomplete."""


class PlanError(BciError):
    """A plan compiled for a GPU: missing, damaged, foreign, or not computing what its bundle does."""


class RecordingError(BciError):
    """A file that cannot be read as a recording."""


class MissingDependency(BciError):
    """An optional library is needed and not installed."""


class StreamError(BciError):
    """Something is wrong with a stream of samples."""


class StreamNotFound(StreamError):
    """No such live stream or device."""


class StreamLost(StreamError):
    """The stream was there and is gone."""


class StreamMismatch(StreamError):
    """The stream does not fit what is asked of it."""


class EndOfStream(StreamError):
    """The stream ended as it should."""
