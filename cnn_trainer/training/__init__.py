"""Training: the one recipe from a config to an outcome, the loop, and the compiled step."""
