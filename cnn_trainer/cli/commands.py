"""How Typer's commands are presented: without the names of Python types, and with summaries that are not cut off."""

import inspect
import re
from typing import Any

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup

_NOT_ONE_OF = re.compile(r"(?:Value error, )?(?P<problem>'(?P<word>.*)' is not one of (?P<names>'.*'))\.")


class PlainCommand(TyperCommand):
    """A command that shows its arguments by name only, and that suggests the choice nearest to a wrong word."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's own, shown without types."""
        return _without_types(super().get_params(ctx))

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Typer's own; the error for a wrong choice then ends with the nearest name."""
        try:
            return super().parse_args(ctx, args)
        except typer.BadParameter as error:
            if found := _NOT_ONE_OF.fullmatch(error.message):
                from cnn_trainer.config.nearest import did_you_mean

                names = found["names"].strip("'").split("', '")
                error.message = f"{found['problem']}{did_you_mean(found['word'], names)}"
            raise


class PlainGroup(TyperGroup):
    """A group of commands that shows its flags by name only."""

    def get_params(self, ctx: Any) -> list[Any]:
        """Typer's own, shown without types."""
        return _without_types(super().get_params(ctx))


def _without_types(params: list[Any]) -> list[Any]:
    for param in params:
        if isinstance(param, TyperArgument):
            _name_only(param)
        elif param.is_flag:
            vars(param)["display_type_rich"] = lambda **_: None
    return params


def _name_only(argument: TyperArgument) -> None:
    name = argument.display_name_raw
    usage = name if argument.required or name.startswith("[") else f"[{name}]"
    replacements: dict[str, Any] = {"get_usage_pieces": lambda _: [usage], "display_type_rich": lambda **_: None}
    vars(argument).update(replacements)


def present(app: typer.Typer) -> None:
    """Make every command of ``app``, and of the groups in it, a PlainCommand whose summary is shown in full."""
    for command in app.registered_commands:
        command.cls = PlainCommand
        summary = inspect.cleandoc((command.callback and command.callback.__doc__) or "").partition("\n\n")[0]
        command.short_help = " ".join(summary.split())
    for group in app.registered_groups:
        if group.typer_instance:
            own = group.typer_instance.info.cls
            group.cls = own if isinstance(own, type) and issubclass(own, PlainGroup) else PlainGroup
            group.short_help = group.typer_instance.info.help
            present(group.typer_instance)
