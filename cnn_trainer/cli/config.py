"""``cnn-train config``: check, show, describe and create the YAML files of experiments."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from cnn_trainer.cli.options import AsJson, ConfigFile, OverrideOptions
from cnn_trainer.cli.output import next_step, print_json, print_verbatim, say, with_overrides
from cnn_trainer.errors import ConfigError, Fault

app = typer.Typer(no_args_is_help=True, help="Check, show and create the YAML files of experiments.")


@app.command("check")
def config_check(
    configs: Annotated[
        list[Path],
        typer.Argument(metavar="CONFIG...", help="YAML files, shipped configs such as mnist, or - for standard input."),
    ],
    overrides: OverrideOptions = None,
    as_json: AsJson = False,
) -> None:
    """Find every fault in configs.

    All faults of all files are listed at once, without loading TensorFlow.
    """
    from cnn_trainer.config.load import summarize_config
    from cnn_trainer.config.strict_yaml import place_name
    from cnn_trainer.network.fits import load_checked

    results: list[dict[str, object]] = []
    faults: list[Fault] = []
    for path in configs:
        try:
            config = load_checked(path, overrides or ())
            say(*config.notes, f"{place_name(path)}: ok: {summarize_config(config.experiment)}")
            results.append({"file": str(path), "ok": True, "faults": []})
        except ConfigError as error:
            faults += error.faults
            results.append({"file": str(path), "ok": False, "faults": error.lines()})
    if as_json:
        print_json({"configs": results})
    if faults:
        raise ConfigError(*faults)
    next_step("train", configs[0], *with_overrides(overrides))


@app.command()
def show(config_file: ConfigFile, overrides: OverrideOptions = None, as_json: AsJson = False) -> None:
    """Print an experiment with all defaults.

    The output is itself a config, with all keys and with the changes of --set.
    """
    from cnn_trainer.config.load import dump_config
    from cnn_trainer.network.fits import load_checked

    config = load_checked(config_file, overrides or ())
    say(*config.notes)
    if as_json:
        print_json(config.experiment.model_dump(mode="json"))
    else:
        print_verbatim(dump_config(config.experiment))
    next_step("train", config_file, *with_overrides(overrides))


@app.command()
def schema() -> None:
    """Print the JSON Schema of experiments.

    With it, an editor completes keys and marks faults.
    """
    from cnn_trainer.config import template

    print_json(template.json_schema())
    next_step("config", "init")


@app.command()
def init(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The file to write; an existing file is not overwritten.")
    ] = Path("experiment.yaml"),
    model: Annotated[Literal["cnn", "mlp"], typer.Option(help="The network that the file describes.")] = "cnn",
) -> None:
    """Write a commented config to start from.

    It explains every key and gives its default. The JSON Schema is written next to it, for editors.
    """
    from cnn_trainer.config import template

    for path in template.write_new(file, model):
        say(f"written: {path}")
    next_step("config", "check", file)
