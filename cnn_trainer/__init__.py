"""Trains the documented convolutional network on MNIST, or on your own small images, from one YAML file."""

__version__ = "0.1.0"
