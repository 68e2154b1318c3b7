"""Examines this machine and finds what is wrong with it."""
