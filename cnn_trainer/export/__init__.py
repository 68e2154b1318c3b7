"""Exports a run's result in other formats, each of which must prove to be the same model before it is published."""
