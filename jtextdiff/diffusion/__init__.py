"""Pure mathematics of diffusion over arrays: no flax, no files, no strings."""
