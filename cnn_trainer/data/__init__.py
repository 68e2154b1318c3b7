"""Data sets: found or downloaded, read under limits, checked, split, and identified by their digests.

Augmentation, which needs TensorFlow, is in ``cnn_trainer.training.augment`` and is not imported here.
"""

from cnn_trainer.data.check import DataReport, check_data
from cnn_trainer.data.doubts import Data
from cnn_trainer.data.download import DownloadProgress, no_progress
from cnn_trainer.data.load import TrainingData, at_path, data_used, load_split, load_training
from cnn_trainer.data.places import SourceStatus, fetch, list_sources
from cnn_trainer.data.splits import Split, order_of_examples, split_digest, unused_fraction

__all__ = [
    "Data", "DataReport", "DownloadProgress", "SourceStatus", "Split", "TrainingData", "at_path", "check_data",
    "data_used", "fetch", "list_sources", "load_split", "load_training", "no_progress", "order_of_examples",
    "split_digest", "unused_fraction",
]  # fmt: skip
