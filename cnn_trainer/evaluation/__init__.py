"""Computes scores, and scores a run on a split of its data."""
