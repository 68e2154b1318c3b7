"""Plain functions that several test files call."""

import json
import signal
from contextlib import contextmanager

import pytest
from typer.testing import CliRunner

from cnn_trainer.cli import app
from cnn_trainer.errors import CnnTrainError, DataError
from cnn_trainer.machine.terminal import printable


def invoke(*words):
    """The exit code, stdout and stderr of the program."""
    result = CliRunner().invoke(app, list(map(str, words)))
    error = result.exception
    if isinstance(error, CnnTrainError):
        lines = "".join(f"error: {printable(line)}\n" for line in error.lines())
        return error.exit_code, result.stdout, result.stderr + lines
    if error is not None and not isinstance(error, SystemExit):
        raise error
    return result.exit_code, result.stdout, result.stderr


def refusal(read, *args, **keys):
    """The message, of one line, of the DataError that ``read`` raises."""
    with pytest.raises(DataError) as caught:
        read(*args, **keys)
    message = str(caught.value)
    assert "\n" not in message
    return message


@contextmanager
def signals_heard():
    """A child that is started inside receives signals that these tests ignore (nohup and a shell's ``&`` ignore some).

    A child inherits ignored signals, but not handlers. These tests and their other children keep ignoring the signals.
    """
    numbers = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGTERM)
    ignored = [number for number in numbers if signal.getsignal(number) is signal.SIG_IGN]
    for number in ignored:
        signal.signal(number, lambda *_: None)
    try:
        yield
    finally:
        for number in ignored:
            signal.signal(number, signal.SIG_IGN)


def settings(*overrides):
    return [word for override in overrides for word in ("--set", override)]


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def edit_json(path, **changes):
    path.write_text(json.dumps({**read_json(path), **changes}))


def read_metrics(run_dir):
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]


def recovered(trainer):
    """Gradients of one step of plain gradient descent over the whole split, and the sums of that step."""
    before = trainer.weights()
    sums = trainer.train()
    rate = trainer.experiment.training.learning_rate
    return [(was - now) / rate for was, now in zip(before, trainer.weights(), strict=True)], sums
