"""The network: the Keras model, its operations and how they are rewritten, its forward pass, precision and shapes."""
