"""What a search writes as JSON: read back under the same schema, unknown keys refused."""

from typing import Any, Literal

from pydantic import Field

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
    step_seconds: float = Field(description="Of these, those inside training steps.", ge=0)


class SearchRecord(Record):
    """What search.json holds."""

    schema_version: Literal[1] = SCHEMA_VERSION
    status: SearchStatus
    name: str
    created_at: str = Field(description="UTC, ISO 8601.")
    updated_at: str = Field(description="UTC, ISO 8601.")
    versions: dict[str, str] = Field(description="Of all that decides which trials are proposed and what they come to.")
    error: str | None = Field(None, description="Why the search failed.")
