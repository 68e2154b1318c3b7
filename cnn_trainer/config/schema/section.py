"""What all sections of the schema share."""

from typing import Annotated, Any, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    GetJsonSchemaHandler,
    model_validator,
)
from pydantic_core import core_schema

Item = TypeVar("Item")


class KeyProblem(ValueError):  # noqa: N818 -- pydantic collects it with its own errors
    """A rule that involves several sections is broken; ``key`` is the dotted key to change."""

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.key, self.problem, self.remedy = key, problem, remedy


class Section(BaseModel):
    """Base of all sections: frozen, strict, without unknown keys, without NaN or infinity.

    Null, which YAML gives for a heading with nothing under it, leaves every key at its default.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_written(cls, value: Any) -> Any:
        return {} if value is None else value


def default_kind(key: str, kind: str) -> BeforeValidator:
    """Makes ``kind`` the kind of a section that leaves out ``key``, which names its kind."""

    def chosen(value: Any) -> Any:
        section = {} if value is None else value
        return {key: kind, **section} if isinstance(section, dict) else section

    return BeforeValidator(chosen)


class _OneForAll:
    """Reads a single value as a list of one; Cnn and Mlp then repeat a list of one to the length that they need."""

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> core_schema.CoreSchema:
        return core_schema.no_info_before_validator_function(
            lambda value: value if isinstance(value, list) else [value], handler(source)
        )

    def __get_pydantic_json_schema__(
        self, schema: core_schema.CoreSchema, handler: GetJsonSchemaHandler
    ) -> dict[str, Any]:
        many = handler(schema)
        return {"anyOf": [many["items"], many]}


OneOrMore = Annotated[list[Item], _OneForAll(), Field(min_length=1, max_length=16)]
AnyNumber = Annotated[list[Item], _OneForAll(), Field(max_length=16)]  # empty if there is no layer to give one for


def one_for_all(section: type[Section]) -> list[str]:
    """The keys of a section whose single value stands for as many as another key has."""
    fields = section.model_fields.items()
    return [name for name, info in fields if any(isinstance(item, _OneForAll) for item in info.metadata)]
