"""Scores of edits."""
