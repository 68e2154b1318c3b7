"""``cnn-train doctor``: what this machine is, and what is wrong with it."""

from typing import TYPE_CHECKING, Any

from cnn_trainer.cli.options import DEFAULT_RUNS_DIR, AsJson, RunsDir
from cnn_trainer.cli.output import next_step, print_json, print_lines, say
from cnn_trainer.cli.tables import pairs, stdout_width, wrap

if TYPE_CHECKING:
    from cnn_trainer.errors import CnnTrainError


def doctor(runs_dir: RunsDir = DEFAULT_RUNS_DIR, as_json: AsJson = False) -> None:
    """Examine this machine, and say what is wrong with it.

    Shows versions, devices, threads, processor and data, and tries a short training run. The exit code is 0 if training
    on the CPU would work.
    """
    from cnn_trainer.doctor.examine import examine

    say("training three steps on made-up images; this takes a few seconds")
    found = examine(runs_dir)
    if as_json:
        problems = {"errors": _as_json(found.errors), "warnings": _as_json(found.warnings)}
        print_json({**found.sections, **problems, "hints": found.hints})
    else:
        width = stdout_width()
        for title, section in found.sections.items():
            rows = [(name, _words(value)) for name, value in section.items()]
            print_lines([title, *pairs(rows or [("nothing", "")], "  ", width), ""])
        wrong = [line for error in (*found.errors, *found.warnings) for line in wrap(f"  {error}", width, "  ")]
        print_lines(["wrong", *(wrong or ["  nothing"])])
        print_lines(line for hint in found.hints for line in ("", "hint", f"  {hint}"))
    if found.errors:
        raise found.errors[0]
    next_step("train", "mnist")


def _as_json(errors: "list[CnnTrainError]") -> list[dict[str, Any]]:
    return [{name: getattr(error, name) for name in ("place", "problem", "remedy", "exit_code")} for error in errors]


def _words(value: object) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value)) or "none"
    return "none" if value is None else str(value)
