"""Denoising trajectories, in the terminal, as PNG and as HTML."""
