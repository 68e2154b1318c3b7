"""What a search writes as JSON: read back under the same schema, unknown keys refused."""

from typing import Any, Literal

from pydantic import Field

from cnn_trainer.runs.records import DataRecord
from cnn_trainer.storage.strict_json import SCHEMA_VERSION, Record

JobStatus = Literal["ok", "diverged"]
SearchStatus = Literal["searching", "interrupted", "failed", "finished"]


class JobResult(Record):
    """What came of one job: one line of journal.jsonl. Times aside, it is a function of the search's file."""

    trial: int = Field(description="Counted from 1.", ge=1)
    final: int | None = Field(None, description="Which of the fresh seeds, counted from 1; null in the search itself.")
    rung: int = Field(description="Counted from 1.", ge=1)
    changes: dict[str, Any] = Field(description="What the trial changes in the search's experiment, by dotted key.")
    status: JobStatus
    epochs: int = Field(description="That the trial has been trained for in all.", ge=0)
    best_epoch: int | None = Field(None, description="With the lowest validation loss so far.", ge=1)
    validation_loss: float | None = Field(None, description="Of best_epoch; null if the trial diverged.")
    validation_accuracy: float | None = Field(None, description="Of best_epoch; null if it diverged.", ge=0, le=1)
    weights_sha256: str | None = Field(None, description="Digest of best_epoch's weights; null if it diverged.")
    seconds: float = Field(description="That a worker spent on the job, from its start to this result.", ge=0)
    step_seconds: float = Field(
        description="Of these, those inside training steps, with the tracing of the first.", ge=0
    )


class SearchRecord(Record):
    """What search.json holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: SearchStatus
    name: str
    created_at: str = Field(description="UTC, ISO 8601.")
    updated_at: str = Field(description="UTC, ISO 8601.")
    versions: dict[str, str] = Field(description="Of all that decides which trials are proposed and what they come to.")
    data: DataRecord = Field(description="What trials learn from and validate on.")
    identity_sha256: str | None = Field(None, description="Of all results, times aside; null until the end.")
    error: str | None = Field(None, description="Why the search failed.")


class RankAgreement(Record):
    """How far two rungs put the trials that reached both into the same order."""

    lower_epochs: int
    upper_epochs: int
    num_trials: int
    tau: float | None = Field(description="Kendall's tau-b, from -1 to 1; null if a rung has all equal.", ge=-1, le=1)


class Importance(Record):
    """How much each key decides whether a trial is among the better ones."""

    epochs: int = Field(description="After which the trials were compared.")
    num_trials: int
    shares: dict[str, float] = Field(description="By dotted key, the largest first; they add up to 1.")


class Finalist(Record):
    """One of the best trials, retrained on fresh seeds."""

    trial: int
    values: list[float] = Field(description="Of the goal, in the order of the seeds, those that diverged left out.")
    num_diverged: int
    mean: float | None = Field(description="Of the values; null if there are none.")
    interval: list[float] | None = Field(description="95 % interval of the mean (Student's t); null below two values.")


class SearchSummary(Record):
    """What a search has come to so far: what ``search show`` and the end of ``search`` print with --json."""

    search: str = Field(description="The search's folder.")
    status: SearchStatus
    goal: str
    num_trials: int = Field(description="That have a result.")
    num_planned: int = Field(description="That the search proposes in all.")
    num_diverged: int
    epochs: int = Field(description="Trained in all, finals too.")
    best_trial: int | None = Field(description="Of those that went furthest; null if there is none yet.")
    best_value: float | None = Field(description="Of the goal. Optimistic: the best of many is partly the luckiest.")
    finalists: list[Finalist] = Field(description="The best mean first.")
    rank_agreement: list[RankAgreement]
    importance: Importance | None = Field(description="null if there are too few trials to tell.")
    winning_run: str | None = Field(description="The run directory of the winner's best seed; null until the end.")
    test_accuracy: float | None = Field(description="Of that run; null until the test split was opened.")
    test_accuracy_interval: list[float] | None
    test_examples: int | None
    identity_sha256: str | None = Field(description="Of all results, times aside; null until the end.")
