"""Measures how fast this program trains on the user's machine, compared with the plain programs that people write."""
