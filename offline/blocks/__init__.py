"""Layers with carried state, shared by all nets: the same numbers for any chunking."""
