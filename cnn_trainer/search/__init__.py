"""Hyperparameter search: from one space file to the settings that generalise best."""
