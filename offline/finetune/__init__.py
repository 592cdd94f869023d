"""A decoder made of a pretrained backbone."""
