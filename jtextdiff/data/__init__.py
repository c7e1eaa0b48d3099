"""Strings to integers and back: tokenizers, corpora, batches, and the counting of words. No jax here."""
