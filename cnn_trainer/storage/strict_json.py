"""JSON that is strict both ways, and the base of records, which are written and read back under the same schema."""

import json
import math
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from cnn_trainer.errors import StorageError
from cnn_trainer.storage import files

SCHEMA_VERSION: Final = 1

MAX_JSON_BYTES = 1024 * 1024
# A list of a million empty lists is 3 MB of JSON and 80 MB of Python objects. With this bound and the bound on the size
# of the file, parsed values take at most about 12 times the size of their text.
MAX_CONTAINERS = 250_000
MAX_JSON_DIGITS = 20  # of an integer; an unsigned 64-bit integer needs as many

AnyRecord = TypeVar("AnyRecord", bound=BaseModel)


class Record(BaseModel):
    """Base class of all records: frozen, strict, without NaN or infinity (JSON has neither)."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False, defer_build=True)


def utc_now() -> str:
    """The current time in UTC, to the second, as ISO 8601."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def format_json(value: object, indent: int | None = None) -> str:
    """Format ``value`` as strict JSON. Raises ValueError for NaN, infinity and text that is not valid Unicode."""
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=False)
    text.encode()
    return text


def to_json(record: BaseModel) -> bytes:
    """Format a record as strict JSON in UTF-8, indented, with a newline at the end."""
    return f"{format_json(record.model_dump(), indent=2)}\n".encode()


def parse_json(data: bytes | str, place: object = None) -> Any:
    """Parse a JSON text in UTF-8; ``place`` is where it was read, for the error.

    Raises:
        StorageError: for anything that ``format_json`` does not write (duplicate keys, NaN, infinity, integers of
            more than ``MAX_JSON_DIGITS`` digits, text that is not valid Unicode), for nesting that is too deep for
            Python's stack, and for more than ``MAX_CONTAINERS`` lists and mappings.
    """
    try:
        text = data if isinstance(data, str) else data.decode()
        text.encode()
        if text.count("[") + text.count("{") > MAX_CONTAINERS:
            raise ValueError(f"more than {MAX_CONTAINERS} lists and mappings")
        value = json.loads(
            text,
            object_pairs_hook=_mapping,
            parse_constant=_refuse_constant,
            parse_float=_finite,
            parse_int=_integer,
        )
        if "\\ud" in text.lower():  # half of a surrogate pair, escaped, is valid JSON but not valid Unicode
            format_json(value)
    except UnicodeError:
        raise StorageError("not valid JSON: not UTF-8 text", place=place) from None
    except ValueError as error:
        raise StorageError(f"not valid JSON: {error}", place=place) from None
    except RecursionError:
        raise StorageError("not valid JSON: nested too deeply", place=place) from None
    return value


def validated(kind: type[AnyRecord], value: Any, place: object) -> AnyRecord:
    """Validate ``value`` as a record of this kind. Raises StorageError with ``place`` and the first fault."""
    try:
        return kind.model_validate(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False)[0]
        key = ".".join(map(str, fault["loc"]))[:60]
        problem = f"{key}: {fault['msg'][0].lower()}{fault['msg'][1:]}" if key else "not a mapping of the known keys"
        remedy = "the file was changed, or another version wrote it"
        raise StorageError(problem, place=place, remedy=remedy) from None


def read_record(kind: type[AnyRecord], path: Path, limit: int = MAX_JSON_BYTES) -> AnyRecord:
    """Read a record from a JSON file of at most ``limit`` bytes. Raises StorageError naming the file and the fault."""
    return validated(kind, parse_json(files.read_bounded(path, limit), path), path)


def changed(record: AnyRecord, **changes: Any) -> AnyRecord:
    """A copy of ``record`` with ``changes``, validated again. Raises pydantic's ValidationError, which is a defect."""
    return type(record).model_validate({**dict(record), **changes})


def _mapping(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping: dict[str, Any] = {}
    for key, value in pairs:
        if key in mapping:
            raise ValueError(f"the key {key[:60]!r} occurs twice")
        mapping[key] = value
    return mapping


def _refuse_constant(word: str) -> None:
    raise ValueError(f"{word} is not a number in JSON")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"the number {text[:60]} is too large for 64-bit floating point")
    return number


def _integer(text: str) -> int:
    if len(text) > MAX_JSON_DIGITS and len(text.lstrip("-")) > MAX_JSON_DIGITS:  # most are short; this saves a third
        raise ValueError(f"an integer has more than {MAX_JSON_DIGITS} digits")
    return int(text)
