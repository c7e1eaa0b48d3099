"""Probabilistic grammars with features, and the embedded grammar of restaurant descriptions."""
