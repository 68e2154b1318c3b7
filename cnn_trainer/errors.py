"""Every failure that a user can cause, each with its exit code.

Raise one of these for what the user, the data or the machine got wrong; the command line turns it into one line (or
a short list) and the exit code. Anything else is a defect of this program and keeps its traceback.
"""


class CnnTrainError(Exception):
    """Base of all expected failures. ``str(error)`` says where, the name, the value and the remedy."""

    exit_code = 1


class UsageError(CnnTrainError):
    """The command line asks for something that does not exist or does not go together."""

    exit_code = 2


class ConfigError(CnnTrainError):
    """An experiment config is wrong. Holds all faults of the config, one line each, in ``faults``."""

    exit_code = 3

    def __init__(self, *faults: str) -> None:
        super().__init__("\n".join(faults))
        self.faults = faults


class DataError(CnnTrainError):
    """Images or labels are missing, broken or not what they are said to be."""

    exit_code = 4


class DeviceError(CnnTrainError):
    """The asked device is not there, or TensorFlow cannot run on this machine."""

    exit_code = 5


class RunDirectoryError(CnnTrainError):
    """A run directory cannot be found, created, locked, read or written."""

    exit_code = 6


class CheckFailedError(CnnTrainError):
    """A check that the user asked for did not hold, such as a minimum accuracy."""

    exit_code = 7


class DivergedError(CnnTrainError):
    """The training loss is no longer a finite number."""

    exit_code = 8


class StoppedError(CnnTrainError):
    """A signal asked the program to stop, and it did so in good order; the run can be resumed."""

    def __init__(self, message: str, signal_number: int) -> None:
        super().__init__(message)
        self.exit_code = 128 + signal_number
