"""Published checkpoints: read as runs of this library, and written in the published layout."""
