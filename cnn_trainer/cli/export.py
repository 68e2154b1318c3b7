"""``cnn-train export``: a run's result in the formats that other software runs."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, AsJson, RunArgument, RunsDir
from cnn_trainer.cli.output import next_step, print_json, say
from cnn_trainer.errors import count

if TYPE_CHECKING:
    from cnn_trainer.export.manifest import Manifest


class _Format(StrEnum):
    ALL = "all"
    SAVED_MODEL = "saved-model"
    ONNX = "onnx"
    LITERT = "litert"
    LITERT_MICRO = "litert-micro"
    KERAS = "keras"


def export(
    run: RunArgument,
    formats: Annotated[
        list[_Format] | None,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="saved-model, onnx, litert (float32, float16, int8 and micro), litert-micro, keras, or all; can be "
            "repeated.",
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", help="The folder to export to; by default export in the run directory.", show_default=False
        ),
    ] = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    data: Annotated[Path | None, typer.Option(metavar="PATH", help="Read the data from here.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write a run's result for other software, and check that it is the same model.

    An exported model takes raw images with values from 0 to 255 and gives probabilities. Without --format, all formats
    are written. Each one is run by its own runtime on the whole test split; if it differs from the run, it is refused
    and the exit code is 7.
    """
    from cnn_trainer.errors import CheckFailedError
    from cnn_trainer.export.manifest import PATHS
    from cnn_trainer.export.publish import export_run
    from cnn_trainer.runs import paths, store

    opened = store.open_run(paths.resolve_run(run, runs_dir))
    asked = tuple(formats or [_Format.ALL])
    wanted = [name for name in PATHS if _Format.ALL in asked or name.startswith(asked)]
    found = export_run(opened, wanted, output, data, say)
    if found.manifest:
        say(*_table(found.manifest))
    if as_json:
        manifest = found.manifest.model_dump(mode="json") if found.manifest else None
        print_json({"export": str(found.dir), "manifest": manifest, "refused": found.refused})
    if found.refused:
        *others, last = found.refused.values()
        for reason in others:
            say(f"error: {reason}")
        raise CheckFailedError(last)
    if found.manifest and found.manifest.models.keys() - {"saved-model", "keras", "litert-micro"}:
        next_step("serve", found.dir)


def _table(manifest: "Manifest") -> list[str]:
    from cnn_trainer.cli.tables import stdout_width, table

    heading = ("format", "file", "bytes", "accuracy", "equal", "difference", "ms per image", "images/s")
    rows = []
    for name, model in manifest.models.items():
        parity = model.parity
        cells = (f"{model.num_bytes:,}", f"{parity.accuracy:.4f}", f"{parity.equal_predictions:.2%}")
        speed = (f"{parity.latency_seconds * 1000:.3f}", f"{parity.images_per_second:,.0f}")
        rows.append((name, model.path, *cells, f"{parity.max_difference:.1e}", *speed))
    right = f"the run itself gets {manifest.test_accuracy:.4f} of {count(manifest.test_examples, 'test image')} right"
    legend = "equal: predictions that match the run's; difference: the largest in any probability; with one thread"
    micro = ["litert-micro: an input is pixel - 128, a probability is (output + 128) / 256"]
    return [
        *table(heading, rows, stdout_width()),
        f"{right}; {legend}",
        *(micro if "litert-micro" in manifest.models else []),
    ]
