"""Scores of a trained model, compared with those of real text."""
