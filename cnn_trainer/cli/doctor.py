"""``cnn-train doctor``: what this machine is, and what is wrong with it."""


def doctor() -> None:
    """Look at this machine."""
