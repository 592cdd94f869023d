"""Corpora, models, training, evaluation and export.  The only package that imports torch."""
