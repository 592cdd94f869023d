"""Cross-validation of pretrained nets over people."""
