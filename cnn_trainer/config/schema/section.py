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


class KeyProblem(ValueError):  # noqa: N818 -- no error of its own: pydantic collects it
    """A rule over several sections does not hold; ``key`` is the dotted key to change."""

    def __init__(self, key: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.key, self.problem, self.remedy = key, problem, remedy


class Section(BaseModel):
    """Base of all sections: frozen, strict, without unknown keys, without NaN or infinity.

    Null, which is what a heading with nothing under it is in YAML, leaves every key at its default.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, allow_inf_nan=False, validate_default=True, defer_build=True
    )

    @model_validator(mode="before")
    @classmethod
    def _nothing_written(cls, value: Any) -> Any:
        return {} if value is None else value


def default_kind(key: str, kind: str) -> BeforeValidator:
    """Makes a section that leaves out ``key``, which says of which kind it is, one of ``kind``."""

    def chosen(value: Any) -> Any:
        section = {} if value is None else value
        return {key: kind, **section} if isinstance(section, dict) else section

    return BeforeValidator(chosen)


class _OneForAll:
    """Lets a single value stand for a list of one; Cnn and Mlp then repeat a list of one to the length they need."""

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
AnyNumber = Annotated[list[Item], _OneForAll(), Field(max_length=16)]  # empty if there is nothing to give one for
