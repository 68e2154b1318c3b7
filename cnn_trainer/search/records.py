"""The JSON records that a search writes. They are read back under the same schema; unknown keys are refused."""

from typing import Any, Literal

from pydantic import Field

from cnn_trainer.runs.records import DataRecord
from cnn_trainer.storage.strict_json import SCHEMA_VERSION, Record

JobStatus = Literal["ok", "diverged"]
SearchStatus = Literal["searching", "interrupted", "failed", "finished"]


class JobResult(Record):
    """The result of one job: one line of journal.jsonl. Except for the times, the space file determines it."""

    trial: int = Field(description="Number of the trial, counted from 1.", ge=1)
    final: int | None = Field(None, description="Number of the fresh seed, from 1; null in the search itself.")
    rung: int = Field(description="Number of the rung, counted from 1.", ge=1)
    changes: dict[str, Any] = Field(description="The trial's changes to the search's experiment, by dotted key.")
    status: JobStatus
    epochs: int = Field(description="Epochs that the trial has been trained for in total.", ge=0)
    best_epoch: int | None = Field(None, description="The epoch with the lowest validation loss so far.", ge=1)
    validation_loss: float | None = Field(None, description="Loss after best_epoch; null if the trial diverged.")
    validation_accuracy: float | None = Field(
        None, description="Accuracy after best_epoch; null if the trial diverged.", ge=0, le=1
    )
    weights_sha256: str | None = Field(
        None, description="Digest of the weights after best_epoch; null if the trial diverged."
    )
    seconds: float = Field(description="Seconds that a worker spent on the job, from its start to this result.", ge=0)
    step_seconds: float = Field(
        description="The part of seconds spent in training steps, including the tracing of the first.", ge=0
    )


class WinnerScore(Record):
    """The winner's score on the test split."""

    accuracy: float = Field(ge=0, le=1)
    accuracy_interval: list[float] = Field(description="95 % confidence interval of the accuracy (Wilson).")
    num_examples: int = Field(ge=1)


class SharedFacts(Record):
    """What a database knows of a search besides its results, from the machine that created it there."""

    created_at: str = Field(description="Time in UTC, ISO 8601.")
    versions: dict[str, str]
    processor: str


class SearchRecord(Record):
    """The contents of search.json."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: SearchStatus
    name: str
    created_at: str = Field(description="Time in UTC, ISO 8601.")
    updated_at: str = Field(description="Time in UTC, ISO 8601.")
    versions: dict[str, str] = Field(description="Versions of everything that affects the proposals and the results.")
    data: DataRecord = Field(description="The data that trials train and validate on.")
    identity_sha256: str | None = Field(
        None, description="Digest of all results, not counting times; null until the search has ended."
    )
    error: str | None = Field(None, description="Why the search failed.")
    study: str | None = Field(None, description="Name of the search in a database; null if it is not in one.")
    test: WinnerScore | None = Field(None, description="Score of the winner, which another machine may have computed.")


class RankAgreement(Record):
    """How well two rungs agree on the order of the trials that reached both."""

    lower_epochs: int
    upper_epochs: int
    num_trials: int
    tau: float | None = Field(description="Kendall's tau-b, from -1 to 1; null if a rung is all ties.", ge=-1, le=1)


class Importance(Record):
    """How much each key affects whether a trial is among the better ones."""

    epochs: int = Field(description="Number of epochs after which the trials were compared.")
    num_trials: int
    shares: dict[str, float] = Field(description="Share of each dotted key, largest first; the shares add up to 1.")


class Finalist(Record):
    """One of the best trials, retrained on fresh seeds."""

    trial: int
    values: list[float] = Field(description="Value of the goal for each seed, in order, without seeds that diverged.")
    num_diverged: int
    mean: float | None = Field(description="Mean of the values; null if there are none.")
    interval: list[float] | None = Field(
        description="95 % confidence interval of the mean (Student's t); null if there are fewer than two values."
    )


class SearchSummary(Record):
    """The state of a search so far. ``search show --json`` and the end of ``search --json`` print it."""

    search: str = Field(description="The search's folder.")
    status: SearchStatus
    goal: str
    num_trials: int = Field(description="Number of trials that have a result.")
    num_planned: int = Field(description="Number of trials that the search proposes in total.")
    num_diverged: int
    epochs: int = Field(description="Epochs trained in total, including the final runs.")
    best_trial: int | None = Field(description="The best trial at the highest rung reached; null if there is none yet.")
    best_value: float | None = Field(
        description="Value of the goal for best_trial. Optimistic, since the best of many trials is partly luck."
    )
    finalists: list[Finalist] = Field(description="The retrained trials, best mean first.")
    rank_agreement: list[RankAgreement]
    importance: Importance | None = Field(
        description="Importance of the keys; null if there are too few trials to tell."
    )
    winning_run: str | None = Field(
        description="Run directory of the winner's best seed; null before the end, or if it is on another machine."
    )
    test_accuracy: float | None = Field(description="Accuracy of that run; null until the test split has been opened.")
    test_accuracy_interval: list[float] | None
    test_examples: int | None
    identity_sha256: str | None = Field(
        description="Digest of all results, not counting times; null until the search has ended."
    )
