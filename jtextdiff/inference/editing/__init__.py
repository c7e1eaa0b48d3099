"""Editing texts: by diffusion, in latent space, piece by piece, and from files."""
