"""The network: the Keras model, its operations and their rewriting, its forward pass, arithmetic and shapes."""
