"""Bundles shipped with the package, one folder each."""
