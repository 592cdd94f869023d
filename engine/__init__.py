"""A bundle, compiled and stepped over a stream.  Never imports torch."""
