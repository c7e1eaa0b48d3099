"""Text as token ids: sources, tokenizers, corpora, batches, word vectors and the embedded grammar. No jax here."""
