"""Run directories: where they are, what they hold, and how they are written and read."""
