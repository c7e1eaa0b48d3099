"""Probabilistic grammars with features, and the built-in corpus of restaurant descriptions."""
