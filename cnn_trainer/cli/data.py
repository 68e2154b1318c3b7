"""``cnn-train data``: lists the data sets that are at hand, downloads them, and checks them as a whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cnn_trainer.cli.options import AsJson, OverrideOptions
from cnn_trainer.cli.output import next_step, print_json, print_lines, say, shown_download, warn, with_overrides
from cnn_trainer.cli.tables import stdout_width, table, wrap
from cnn_trainer.errors import DataError, UsageError, count

if TYPE_CHECKING:
    from cnn_trainer.config.schema import Experiment
    from cnn_trainer.data import DataReport, SourceStatus

app = typer.Typer(no_args_is_help=True, help="Find, fetch and check data sets.")

# The words after ``cnn-train train`` that train on a named data set.
_NAMED = {
    "mnist": ("mnist",),
    "fashion-mnist": ("fashion-mnist",),
    **{
        source: ("mnist", "--set", f"data={{source: {source}}}")
        for source in ("kmnist", "qmnist", "emnist-digits", "emnist-letters", "emnist-balanced", "mnist-5k")
    },
}


@app.command(name="list")
def list_data(as_json: AsJson = False) -> None:
    """Show which data sets are at hand.

    Only names and first bytes are read; data check reads everything.
    """
    from cnn_trainer import data

    sources = data.list_sources()
    if as_json:
        print_json({"sources": [_as_json(status) for status in sources]})
    else:
        heading = ("data", "at hand", "where")
        print_lines(table(heading, [_row(status) for status in sources], stdout_width()))
    mnist = sources[0]
    next_step("data", "check" if mnist.location else "fetch", mnist.source)


def _as_json(status: "SourceStatus") -> dict[str, object]:
    return {
        "source": status.source,
        "location": status.location and str(status.location),
        "problem": status.problem and str(status.problem),
        "looked_at": status.looked_at,
    }


def _row(status: "SourceStatus") -> tuple[str, str, str]:
    from cnn_trainer.data.named import install_mnist_5k

    if status.problem:
        return status.source, "broken", str(status.problem)
    if status.location:
        return status.source, "yes", str(status.location)
    if status.source == "mnist-5k":
        return status.source, "no", install_mnist_5k()
    return status.source, "no", f"cnn-train data fetch {status.source}"


@app.command("fetch")
def data_fetch(
    source: Annotated[
        Literal["mnist", "fashion-mnist", "kmnist", "qmnist", "emnist-digits", "emnist-letters", "emnist-balanced"],
        typer.Argument(
            metavar="SOURCE",
            help="mnist, fashion-mnist, kmnist, qmnist, emnist-digits, emnist-letters or emnist-balanced.",
            show_default=False,
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Download a data set.

    It is checked byte for byte and stored in Keras' own cache. Files that are already there are not downloaded again.
    """
    from cnn_trainer import data

    with shown_download() as progress:
        location = data.fetch(source, progress)
    used = {status.source: status.location for status in data.list_sources()}[source]
    say(f"{source}: {location}: complete and as published")
    if used != location:
        warn(f"training uses {used}, because CNN_TRAIN_DATA_DIR names it and is searched first")
    if as_json:
        print_json({"source": source, "location": str(location)})
    next_step("train", *_NAMED[source])


@app.command("check")
def data_check(
    subject: Annotated[
        str,
        typer.Argument(
            metavar="CONFIG|SOURCE",
            help=f"An experiment, as for train; or one of {', '.join(_NAMED)}.",
            autocompletion=lambda incomplete: [name for name in _NAMED if name.startswith(incomplete)],
            show_default=False,
        ),
    ],
    overrides: OverrideOptions = None,
    as_json: AsJson = False,
) -> None:
    """Count and compare the images of a data set.

    Shows the number of examples of each class, shapes, digests, and images that occur twice, in one split or in two.
    The exit code is 4 if something is wrong.
    """
    from cnn_trainer import data

    experiment = _experiment(subject, overrides)
    with shown_download() as progress:
        report = data.check_data(experiment.data, experiment.seed, progress)
    if report.validation_from == "own" and experiment.data.validation_fraction:
        warn(data.unused_fraction(report.location, report.splits["validation"].num_examples))
    if as_json:
        print_json(report.model_dump(mode="json"))
    else:
        print_lines(_describe(report))
    if _is_wrong(report):
        found = count(len(report.problems), "problem")
        raise DataError(f"{found}, see above", place=subject, remedy="correct the data, or the config")
    is_data_set = subject in _NAMED and not overrides
    next_step("train", *(_NAMED[subject] if is_data_set else (subject, *with_overrides(overrides))))


def _experiment(subject: str, overrides: list[str] | None) -> "Experiment":
    """What ``subject`` names: a data set, a file, or a shipped config. With keys to set, mnist is the config."""
    from cnn_trainer.config.load import documented_config
    from cnn_trainer.config.nearest import did_you_mean
    from cnn_trainer.config.shipped import shipped_names
    from cnn_trainer.network.fits import load_checked

    shipped = shipped_names()
    if subject in _NAMED and not (overrides and subject in shipped):
        if overrides:
            problem = f"changes a config, and {subject} is not one"
            raise UsageError(problem, place=f"--set {overrides[0]}", remedy="give a YAML file")
        return documented_config({"data": {"source": subject}}).experiment
    if not Path(subject).suffix and not Path(subject).exists() and subject not in shipped:
        remedy = f"the data sets are {', '.join(_NAMED)}; the shipped configs are {', '.join(shipped)}"
        remedy += did_you_mean(subject, [*_NAMED, *shipped])
        raise UsageError("no such file, shipped config or data set", place=subject, remedy=remedy)
    config = load_checked(Path(subject), overrides or ())
    say(*config.notes)
    return config.experiment


def _is_wrong(report: "DataReport") -> bool:
    """Whether something should be corrected. Published data is as it is, even if images in it are repeated."""
    if report.source not in _NAMED or report.source != report.requested:
        return bool(report.problems)
    return not all(all(split.counts) for split in report.splits.values())


def _describe(report: "DataReport") -> list[str]:
    from cnn_trainer.cli.words import conversion, data_name

    width = stdout_width()
    splits = [
        (name, f"{split.num_examples:,}", "x".join(map(str, split.shape[1:])), split.sha256)
        for name, split in report.splits.items()
    ]
    counts = zip(*(split.counts for split in report.splits.values()), strict=True)
    classes = [
        (str(label), name, *(f"{number:,}" for number in row))
        for label, (name, row) in enumerate(zip(report.class_names, counts, strict=True))
    ]
    converted = conversion(report.pixel_dtype, report.white)
    own = ", which has its own validation split" if report.validation_from == "own" else ""
    lines = [
        f"{data_name(report.source, report.requested)}, from {report.location}{own}",
        *([converted] if converted else []),
        "",
        *table(("split", "examples", "image", "sha256 of images and labels"), splits, width),
        "",
        *table(("label", "class", *report.splits), classes, width),
        "",
    ]
    if not report.problems:
        return [*lines, *wrap("nothing wrong: no image occurs twice, none is blank, no class is empty", width)]
    title = "wrong:" if _is_wrong(report) else "as published, but worth knowing:"
    return [*lines, title, *(line for problem in report.problems for line in wrap(f"  {problem}", width, "  "))]
