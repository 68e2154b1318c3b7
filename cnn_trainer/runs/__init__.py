"""Run directories: where they are, what they contain, and how they are written and read."""
