"""Keeps libraries from talking about themselves; what they warn of is raised, not logged."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

LIGHTNING = ("lightning.pytorch", "lightning.fabric")  # which accelerators there are not, and advertisements
EXPORTER = "torch.onnx._internal.exporter._registration"  # which operations of torchvision there are not


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Let loggers say nothing below an error; import what they are of before, which sets their levels."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
