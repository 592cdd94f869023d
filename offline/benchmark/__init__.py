"""Models against each other on people they do not know: folds, seeds, baselines, one report."""
