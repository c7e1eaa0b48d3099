"""Scores of a trained model, each beside the same score of real text."""
