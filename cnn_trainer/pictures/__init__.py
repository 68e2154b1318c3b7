"""Makes real pictures like the images that a network was trained on, and predicts what they show."""
