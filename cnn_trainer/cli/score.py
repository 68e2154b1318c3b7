"""A score as people read it: the figures, the confusion matrix, the most frequent confusions, every class."""

from cnn_trainer.cli.tables import table, wrap
from cnn_trainer.cli.words import data_name
from cnn_trainer.errors import count
from cnn_trainer.runs.records import EvaluationRecord
from cnn_trainer.training.balance import describe_imbalance, first_ten

_MAX_MATRIX_CLASSES = 30
_PIPE_WIDTH = 120  # columns that a confusion matrix may take if there is no terminal
_SHOWN_CONFUSIONS = 10


def headline(found: EvaluationRecord, width: int | None) -> list[str]:
    """The figures and what they were measured on, in lines of at most ``width`` columns; None for no limit.

    The balanced accuracy is one of them if it differs from the accuracy, or if the classes differ much in size.
    """
    low, high = found.accuracy_interval
    accuracy, balanced = f"{found.accuracy:.2%}", f"{found.balanced_accuracy:.2%}"
    names, counts = [score.name for score in found.classes], [score.support for score in found.classes]
    imbalance = describe_imbalance(counts, names)
    missing = [name for name, support in zip(names, counts, strict=True) if not support]
    first = f"{found.split} accuracy {accuracy} (95 % interval {low:.2%} to {high:.2%})"
    if balanced != accuracy or imbalance or missing:
        first += f", balanced accuracy {balanced}"
    data = data_name(found.source, found.requested)
    lines = [first, f"loss {found.loss:.4f}, on {count(found.num_examples, f'{found.split} image')} of {data}"]
    if imbalance:
        lines.append(f"the {found.split} split has {imbalance}; balanced accuracy weights all classes equally")
    if missing:
        lines.append(f"the score does not cover classes that have no {found.split} image: {first_ten(missing)}")
    return [part for line in lines for part in wrap(line, width)]


def score_lines(found: EvaluationRecord, width: int | None) -> list[str]:
    """The whole score, for a terminal of ``width`` columns; None for a file or a pipe."""
    matrix = _matrix(found, width or _PIPE_WIDTH)
    blocks = [headline(found, width), _calibration(found, width), matrix, _confusions(found), _classes(found, width)]
    lines = [line for block in blocks if block for line in (*block, "")]
    return [*lines, f"images sha256 {found.images_sha256}"]


def _calibration(found: EvaluationRecord, width: int | None) -> list[str]:
    """Whether the probabilities can be relied on; no lines for a score of an earlier version."""
    if (calibration := found.calibration) is None:
        return []
    error = calibration.calibration_error
    low, high = error.interval
    verdict = calibration.confidence_gap or "no more apart than by chance"
    lines = [
        f"mean confidence {calibration.confidence:.2%}, accuracy {found.accuracy:.2%}: {verdict}",
        f"expected calibration error {error.error:.2%} (95 % interval {low:.2%} to {high:.2%}); "
        f"a perfectly calibrated model has up to {error.chance_limit:.2%} by chance",
    ]
    if (best := calibration.temperature) and best.temperature != 1:
        before, after = calibration.negative_log_likelihood, best.negative_log_likelihood
        lines.append(
            f"with the temperature {best.temperature:.3g}, which fits the validation split best, the negative log "
            f"likelihood is {after:.4f} instead of {before:.4f}"
        )
    return [part for line in lines for part in wrap(line, width)]


def _matrix(found: EvaluationRecord, width: int) -> list[str]:
    """The confusion matrix in the fullest form that fits ``width``: with numbers instead of names, without diagonal.

    No lines if the matrix, which comes from a file, does not fit the classes.
    """
    names, matrix = [score.name for score in found.classes], found.confusion_matrix
    if [len(row) for row in matrix] != [len(names)] * len(names):
        return []
    numbers = [str(number) for number in range(len(names))]
    numbered = names if names == numbers else [f"{number} {name}" for number, name in enumerate(names)]
    wrong = [[0 if row == column else cell for column, cell in enumerate(cells)] for row, cells in enumerate(matrix)]
    in_order, right = "; classes numbered from 0 in the order below", "; correct ones left out"
    forms = [
        (names, names, matrix, ""),
        (numbers, numbered, matrix, ""),
        (numbers, numbers, matrix, in_order),
        (numbers, numbered, wrong, right),
        (numbers, numbers, wrong, right + in_order),
    ]
    for columns, labels, cells, note in forms if len(names) <= _MAX_MATRIX_CLASSES else ():
        rows = [
            (label, *(f"{cell:,}" if cell else "-" for cell in row)) for label, row in zip(labels, cells, strict=True)
        ]
        lines = table(("label", *columns), rows)
        if max(map(len, lines)) <= width:
            return [*wrap(f"confusion matrix (row: label, column: prediction{note})", width), *lines]
    return wrap("the confusion matrix is too wide to show here; --json prints it", width)


def _confusions(found: EvaluationRecord) -> list[str]:
    misread = round(found.num_examples * (1 - found.accuracy))
    shown = found.confusions[:_SHOWN_CONFUSIONS]
    pairs = [f"  {each.label} read as {each.prediction}: {count(each.count, 'time')}" for each in shown]
    more = len(found.confusions) > len(shown)
    heading = f"misread: {misread:,} of {count(found.num_examples, f'{found.split} image')}"
    return [f"{heading}, most often" if more else heading, *pairs]


def _classes(found: EvaluationRecord, width: int | None) -> list[str]:
    rows: list[tuple[str, ...]] = []
    for score in found.classes:
        shares = ("-" if share is None else f"{share:.4f}" for share in (score.precision, score.recall, score.f1))
        rows.append((score.name, f"{score.support:,}", *shares))
    return table(("class", "examples", "precision", "recall", "F1"), rows, width)
