"""What several runs that differ only in their seed say together."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev

from cnn_trainer.analysis.compare import compare_runs
from cnn_trainer.runs.records import RunOutcome


@dataclass(frozen=True)
class SeedSummary:
    """Test scores of two or more runs that differ only in their seed."""

    num_runs: int
    accuracy: float
    """The mean."""
    accuracy_deviation: float
    """The standard deviation between the runs, with n - 1."""
    accuracy_interval: tuple[float, float] | None
    """The 95 % interval of the mean, over other seeds and other test images (``difference.group_interval``). None if
    the test images themselves depend on the seed."""
    loss: float
    loss_deviation: float


def summarize_seeds(outcomes: Sequence[RunOutcome]) -> SeedSummary | None:
    """Summarize finished runs that differ only in their seed; None if there are fewer than two.

    Raises RunDirectoryError if the scores of a run cannot be read.
    """
    accuracies = [found.test_accuracy for found in outcomes if found.test_accuracy is not None]
    losses = [found.test_loss for found in outcomes if found.test_loss is not None]
    if len(accuracies) < 2:
        return None
    interval = None
    if len({found.test_images_sha256 for found in outcomes}) == 1:
        group = compare_runs([Path(found.run) for found in outcomes], "test").groups[0]
        interval = group.low, group.high
    return SeedSummary(len(accuracies), fmean(accuracies), stdev(accuracies), interval, fmean(losses), stdev(losses))
