"""A run's result in other formats, each shown to be the same model before it is let in."""
