"""Trains the documented convolutional network on MNIST, or on your own small images, from one YAML file.

run = cnn_trainer.train("mnist", {"training.epochs": 3})
run.evaluate()
run.predict(images)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cnn_trainer.training.library import TrainedRun, load_run, train

__all__ = ["TrainedRun", "load_run", "train"]

__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    """Load the library when it is first used, so that the command line starts without it."""
    if name in __all__:
        from cnn_trainer.training import library

        return getattr(library, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
