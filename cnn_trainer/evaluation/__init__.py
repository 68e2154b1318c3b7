"""Scores, and the score of a run on a split of its data."""
