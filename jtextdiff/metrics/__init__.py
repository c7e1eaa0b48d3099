"""Metrics of texts: lists of texts in, numbers out. Imports no jax."""
