"""Losses: one module per kind of task."""
