"""Methods: a dataclass of settings, a network and a loss each; one file per method."""
