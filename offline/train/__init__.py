"""Training of decoders from labelled recordings: recipes, cuts, steps, and what they leave behind."""
