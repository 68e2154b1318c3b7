"""A search in a database: who does which job, and the results as an Optuna study, which optuna-dashboard shows.

Results are in Optuna's tables. Two tables are ours: one line for each search, and one for each job that was ever begun,
with its owner. The owner raises ``beat`` every few seconds. Whoever sees no change of it for ``LOST_SECONDS``, by its
own clock, takes the job over. If two machines do the same job after all, only time is lost, because both get the same
result.

All functions raise SQLAlchemyError or StorageInternalError if the database does not answer.
"""

import hashlib
import time
import uuid
from collections.abc import Container
from contextlib import suppress
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy import Boolean, Column, Integer, MetaData, String, Table, Text, func, insert, select, update
from sqlalchemy.exc import IntegrityError

from cnn_trainer.errors import RunDirectoryError, raised_as
from cnn_trainer.runs.records import DataRecord
from cnn_trainer.search.proposals import distributions
from cnn_trainer.search.records import JobResult, SharedFacts, WinnerScore
from cnn_trainer.search.results import value_of
from cnn_trainer.search.schedule import Job, label
from cnn_trainer.search.spec import Search, canonical, rung_epochs, score
from cnn_trainer.storage import strict_json

LOST_SECONDS = 60.0  # without a sign of life from a job's owner
SCORING = "score"  # the job of scoring the winner on the test split

TABLES = MetaData()
_SEARCHES = Table(
    "cnn_train_searches",
    TABLES,
    Column("study", String(255), primary_key=True),
    Column("facts", Text, nullable=False),
)
_JOBS = Table(
    "cnn_train_jobs",
    TABLES,
    Column("study", String(255), primary_key=True),
    Column("job", String(64), primary_key=True),
    Column("owner", String(32), nullable=False),  # empty: given back
    Column("beat", Integer, nullable=False),
    Column("trial_id", Integer),  # of Optuna's trial, for the first rung of a trial
    Column("is_done", Boolean, nullable=False),
)


def job_key(job: Job | JobResult) -> str:
    """The name of a job in the database, such as ``0007-2`` for the second rung of trial 7."""
    return f"{label(job.trial, job.final)}-{job.rung}"


def study_name(search: Search, data: DataRecord) -> str:
    """The name of a search in any database: equal on all machines for the same space, experiment and images.

    The paths of the files do not matter.
    """
    experiment = search.base.experiment.model_dump()
    experiment["data"] = {key: value for key, value in experiment["data"].items() if not key.endswith("path")}
    images = data.model_dump(exclude={"location"})
    text = strict_json.format_json([search.spec.model_dump(exclude={"experiment"}), experiment, images])
    return f"{search.spec.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


class StudyDatabase:
    """One search in a database, as one supervisor sees it.

    Args:
        storage: The database, with Optuna's tables and ``TABLES``.
        study: The name of the search in it.
        search: The search.
    """

    def __init__(self, storage: RDBStorage, study: str, search: Search) -> None:
        self.study, self._search = study, search
        self._storage, self._engine = storage, storage.engine
        self._owner = uuid.uuid4().hex
        self._study_id = 0
        self._seen: dict[str, tuple[str, int, float]] = {}  # owner and beat of jobs of others, and since when

    def join(self, facts: SharedFacts) -> SharedFacts:
        """Create the search with ``facts`` if it is not there yet. Returns the facts of the one who created it."""
        found = select(_SEARCHES.c.facts).where(_SEARCHES.c.study == self.study)
        text = strict_json.format_json(facts.model_dump())
        with self._engine.connect() as connection:
            row = connection.execute(found).first()
        if row is None:
            with suppress(IntegrityError), self._engine.begin() as connection:  # another supervisor may be faster
                connection.execute(insert(_SEARCHES).values(study=self.study, facts=text))
        with self._engine.connect() as connection:
            text = connection.execute(found).scalar_one()
        known = _validated(SharedFacts, strict_json.parse_json(text), self.study)
        is_loss = self._search.spec.goal == "validation_loss"
        direction = StudyDirection.MINIMIZE if is_loss else StudyDirection.MAXIMIZE
        try:
            self._study_id = self._storage.create_new_study([direction], self.study)
        except DuplicatedStudyError:
            self._study_id = self._storage.get_study_id_from_name(self.study)
        else:
            for key, value in known.model_dump().items():
                self._storage.set_study_user_attr(self._study_id, key, value)
        return known

    def new_results(self, known: Container[str], num_known: int) -> dict[str, JobResult]:
        """The results that are not among the ``num_known`` jobs in ``known``, by job. Raises RunDirectoryError."""
        done = (_JOBS.c.study == self.study, _JOBS.c.is_done.is_(True), _JOBS.c.job != SCORING)
        with self._engine.connect() as connection:
            if connection.execute(select(func.count()).select_from(_JOBS).where(*done)).scalar_one() == num_known:
                return {}
            rows = connection.execute(select(_JOBS.c.job, _JOBS.c.trial_id).where(*done)).all()
        new = {job: trial_id for job, trial_id in rows if job not in known}
        found: dict[str, Any] = {}
        if any(trial_id is None for trial_id in new.values()):
            found |= self._storage.get_study_user_attrs(self._study_id)
        for trial_id in {trial_id for trial_id in new.values() if trial_id is not None}:
            found |= self._storage.get_trial_user_attrs(trial_id)
        return {job: _validated(JobResult, found.get(job), f"study {self.study}, job {job}") for job in sorted(new)}

    def claim(self, key: str, job: Job | None) -> bool:
        """Claim a job; None is the scoring. Returns False if another supervisor does it or has done it."""
        here = (_JOBS.c.study == self.study, _JOBS.c.job == key)
        with self._engine.connect() as connection:
            row = connection.execute(select(_JOBS).where(*here)).first()
        if row is None:
            line = {"study": self.study, "job": key, "owner": self._owner, "beat": 0, "is_done": False}
            try:
                with self._engine.begin() as connection:
                    connection.execute(insert(_JOBS).values(line))
            except IntegrityError:
                return False
        elif row.is_done:
            return False
        elif row.owner != self._owner:
            if row.owner and not self._is_lost(key, row.owner, row.beat):
                return False
            same = (*here, _JOBS.c.owner == row.owner, _JOBS.c.beat == row.beat, _JOBS.c.is_done.is_(False))
            with self._engine.begin() as connection:
                taken = connection.execute(update(_JOBS).where(*same).values(owner=self._owner, beat=row.beat + 1))
            if taken.rowcount != 1:
                return False
        if job is not None and job.final is None and (row is None or row.trial_id is None):
            trial_id = self._trial_id(job, is_new=row is None)
            with self._engine.begin() as connection:
                connection.execute(update(_JOBS).where(*here).values(trial_id=trial_id))
        return True

    def _is_lost(self, key: str, owner: str, beat: int) -> bool:
        seen = self._seen.get(key)
        if seen is None or seen[:2] != (owner, beat):
            self._seen[key] = (owner, beat, time.monotonic())
            return False
        return time.monotonic() - seen[2] > LOST_SECONDS

    def forget_beats(self) -> None:
        """Observe all other supervisors anew: the database was away, and nobody could give a sign of life."""
        self._seen.clear()

    def _trial_id(self, job: Job, is_new: bool) -> int:
        """Optuna's trial of a job, created if the job is the trial's first."""
        if job.rung > 1:
            first = (_JOBS.c.study == self.study, _JOBS.c.job == f"{label(job.trial, None)}-1")
            with self._engine.connect() as connection:
                return int(connection.execute(select(_JOBS.c.trial_id).where(*first)).scalar_one())
        if not is_new:  # its first owner died, perhaps after it had created the trial
            for trial in self._storage.get_all_trials(self._study_id, deepcopy=False):
                if trial.user_attrs.get("trial") == job.trial:
                    return trial._trial_id
        space, parameters = _shown(self._search, job)
        template = optuna.trial.create_trial(
            state=TrialState.RUNNING,
            params=parameters,
            distributions=space,
            user_attrs={"trial": job.trial},
        )
        return self._storage.create_new_trial(self._study_id, template)

    def beat(self) -> None:
        """Give a sign of life for all jobs of this supervisor."""
        self._change_mine(beat=_JOBS.c.beat + 1)

    def release(self) -> None:
        """Give back all jobs of this supervisor."""
        self._change_mine(owner="")

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _change_mine(self, **values: Any) -> None:
        mine = (_JOBS.c.study == self.study, _JOBS.c.owner == self._owner, _JOBS.c.is_done.is_(False))
        with self._engine.begin() as connection:
            connection.execute(update(_JOBS).where(*mine).values(**values))

    def add(self, result: JobResult) -> None:
        """Add the result of a job that this supervisor claimed, now or earlier."""
        key, value = job_key(result), value_of(self._search, score(self._search, result))
        if result.final is not None:
            self._storage.set_study_user_attr(self._study_id, key, result.model_dump())
        else:
            here = (_JOBS.c.study == self.study, _JOBS.c.job == key)
            with self._engine.connect() as connection:
                trial_id = int(connection.execute(select(_JOBS.c.trial_id).where(*here)).scalar_one())
            epochs = rung_epochs(self._search)
            with suppress(UpdateFinishedTrialError):  # who took the job over has added the same result
                self._storage.set_trial_user_attr(trial_id, key, result.model_dump())
                if value is None:
                    self._storage.set_trial_state_values(trial_id, TrialState.FAIL)
                else:
                    self._storage.set_trial_intermediate_value(trial_id, epochs[result.rung - 1], value)
                    if result.rung == len(epochs):
                        self._storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
        self._set_done(key)

    def _set_done(self, key: str) -> None:
        here = (_JOBS.c.study == self.study, _JOBS.c.job == key)
        with self._engine.begin() as connection:
            connection.execute(update(_JOBS).where(*here).values(is_done=True))

    def test_score(self) -> WinnerScore | None:
        """The winner's score on the test split; None if there is none yet."""
        found = self._storage.get_study_user_attrs(self._study_id).get("test")
        return None if found is None else _validated(WinnerScore, found, f"study {self.study}, test")

    def finish(self, test: WinnerScore) -> None:
        """Add the winner's score on the test split, and end the trials that were not promoted any further."""
        self._storage.set_study_user_attr(self._study_id, "test", test.model_dump())
        for trial in self._storage.get_all_trials(self._study_id, deepcopy=False, states=(TrialState.RUNNING,)):
            values = [trial.intermediate_values[step] for step in sorted(trial.intermediate_values)[-1:]]
            state = TrialState.PRUNED if values else TrialState.FAIL
            with suppress(UpdateFinishedTrialError):
                self._storage.set_trial_state_values(trial._trial_id, state, values or None)
        self._set_done(SCORING)


@raised_as(RunDirectoryError)
def _validated(kind: Any, value: object, place: str) -> Any:
    return strict_json.validated(kind, value, place)


def _shown(search: Search, job: Job) -> tuple[dict[str, BaseDistribution], dict[str, Any]]:
    """The space and the parameters of a trial as optuna-dashboard shows them: choices as text."""
    space, parameters = distributions(search), {key: job.changes[key] for key in search.space}
    for key, dimension in search.space.items():
        if dimension.choices is not None:
            space[key] = CategoricalDistribution([canonical(choice) for choice in dimension.choices])
            parameters[key] = canonical(job.changes[key])
    return space, parameters
