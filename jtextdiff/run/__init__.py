"""One run on disk: config, directory, checkpoints and corpus."""
