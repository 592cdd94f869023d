"""Pretraining on unlabelled signal."""
