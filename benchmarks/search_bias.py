"""Checks the value that a finished search reports.

    python benchmarks/search_bias.py SEARCH [NUM_SEEDS]

retrains best.yaml of the search on seeds that the search did not use, 20 by default, with the same validation split. It
prints the mean of their validation losses beside the interval that the search reported.
"""

import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from cnn_trainer.config.load import change_experiment, load_config
from cnn_trainer.errors import CnnTrainError
from cnn_trainer.runs import store
from cnn_trainer.search import journal, results
from cnn_trainer.search.paths import BEST_FILE
from cnn_trainer.training.run import train_config

GOAL = "validation_loss"


def main() -> None:
    """Check the search named on the command line."""
    search_dir, num_seeds = Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 20
    opened = journal.open_search(search_dir)
    summary = results.summarize_search(opened, journal.read_results(search_dir))
    reported = summary.finalists[0] if summary.status == "finished" else None
    if reported is None or reported.mean is None or reported.interval is None or opened.search.spec.goal != GOAL:
        raise CnnTrainError(f"is not a finished search for the {GOAL} that reports an interval", place=search_dir)
    first = opened.search.base.experiment.seed + opened.search.spec.final.seeds + 1
    losses = retrain(search_dir / BEST_FILE, range(first, first + num_seeds))
    mean, (low, high) = statistics.fmean(losses), reported.interval
    where = "within" if low <= mean <= high else "outside"
    sys.stdout.write(
        f"best value in the search: {summary.best_value:.4f} (trial {summary.best_trial})\n"
        f"reported: trial {reported.trial}, mean of {len(reported.values)} fresh seeds {reported.mean:.4f}, "
        f"95 % interval {low:.4f} to {high:.4f}\n"
        f"{num_seeds} other seeds: mean {mean:.4f}, standard deviation {statistics.stdev(losses):.4f}\n"
        f"the mean of the other seeds is {where} the interval\n"
    )


def retrain(config: Path, seeds: range) -> list[float]:
    """The validation loss after the best epoch of a run of the config with each seed."""
    best, losses = load_config(config), []
    with tempfile.TemporaryDirectory(prefix="cnn-train-search-") as folder:
        for seed in seeds:
            config_with_seed = replace(best, experiment=change_experiment(best.experiment, {"seed": seed}))
            outcome = train_config(config_with_seed, Path(folder), evaluate=False)
            metrics = store.read_metrics(store.open_run(Path(outcome.run)))
            losses += [line.validation_loss for line in metrics if line.epoch == outcome.best_epoch]
            sys.stderr.write(f"seed {seed}  validation loss {losses[-1]:.4f}\n")
    return [loss for loss in losses if loss is not None]


if __name__ == "__main__":
    main()
