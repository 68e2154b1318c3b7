"""The configs that come with the program; every command finds them by name: ``cnn-train train mnist``."""

import os
from pathlib import Path

from cnn_trainer.config.nearest import names_beside, nearest

_PACKAGE = Path(__file__).parents[1]


def _folder() -> Path:
    """Where the configs are: a wheel installs them inside the package; in a checkout they are next to it."""
    installed = _PACKAGE / "configs"
    return installed if installed.is_dir() else _PACKAGE.parent / "configs"


def shipped_names() -> list[str]:
    """The names of the shipped configs, sorted."""
    return sorted(path.stem for path in _folder().glob("*.yaml"))


def find_config(path: Path) -> Path:
    """``path`` itself, or the shipped config of that name if there is no such file."""
    return path if os.path.isfile(path) or str(path) not in shipped_names() else _folder() / f"{path}.yaml"  # noqa: PTH113


def remedy_for_missing(path: Path) -> str:
    """What to do if there is neither a file ``path`` nor a shipped config of that name."""
    names = shipped_names()
    if path.stem in names:  # such as mnist.yaml
        return f"did you mean {path.stem}, which comes with the program?"
    is_name = not path.suffix and len(path.parts) < 2
    near = nearest(path.name, [*names_beside(path, (".yaml", ".yml")), *(names if is_name else [])])
    hint = f"did you mean {near if near in names else path.with_name(near)}?" if near else None
    if is_name:
        return f"the shipped configs are {', '.join(names)}" + (f"; {hint}" if hint else "")
    return hint or "start one with: cnn-train config init"
