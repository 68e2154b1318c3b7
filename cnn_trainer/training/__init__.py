"""Training: the single recipe from a config to an outcome, the training loop, and the compiled step."""
