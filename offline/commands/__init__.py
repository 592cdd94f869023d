"""The commands of `bcitrain`, one module per command or group."""
