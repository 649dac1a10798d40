"""``pkg.module:factory`` on the command line: find it, call it, read what it returned."""

from __future__ import annotations

import difflib
import importlib
import sys
import traceback
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from stillframe.errors import InvalidInput, StillframeError

_FORMS = (
    "a factory returns module, (module, args), (module, args, kwargs) or (module, kwargs): "
    "args a tuple, kwargs a dict"
)


@dataclass(frozen=True)
class Made:
    """A module and its example inputs; ``args`` is None when the factory gave no inputs."""

    module: torch.nn.Module
    args: tuple[Any, ...] | None = None
    kwargs: dict[str, Any] = field(default_factory=dict)


def make(target: str) -> Made:
    """Import ``pkg.module``, call ``factory`` in it. The current folder can be imported from.

    Raises:
        InvalidInput: it cannot be found, or it returned something else.
        StillframeError: the user's code raised; carries the user's lines.
    """
    module_name, colon, name = target.partition(":")
    if not colon or not module_name or not name:
        raise InvalidInput(
            f"{target!r} does not name a factory.",
            why="expected pkg.module:factory",
            hints=[_FORMS],
        )
    factory = _find(module_name, name)
    if isinstance(factory, torch.nn.Module):
        return Made(factory)
    if not callable(factory):
        raise InvalidInput(f"{target} is no function: {type(factory).__name__}.", hints=[_FORMS])
    try:
        result = factory()
    except StillframeError:
        raise
    except Exception as e:
        raise user_code_error(f"{target} raised {type(e).__name__}: {e}", e) from e
    return _read(target, result)


def user_code_error(what: str, error: BaseException) -> StillframeError:
    """An exception of the user's code as one of ours, with its innermost lines."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = str(Path(__file__).resolve().parents[1])
    lines = [
        f"{f.filename}:{f.lineno} in {f.name}: {f.line}"
        for f in frames
        if not f.filename.startswith((ours, "<frozen"))
    ]
    return StillframeError(what, where=lines[-3:])


def _find(module_name: str, name: str) -> Any:
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if e.name is not None and (module_name + ".").startswith(e.name + "."):
            raise InvalidInput(
                f"There is no module {module_name!r}.",
                why=f"looked in {here} and the installed packages",
            ) from None
        raise user_code_error(f"Importing {module_name} failed: {e}", e) from e
    except Exception as e:
        raise user_code_error(f"Importing {module_name} raised {type(e).__name__}: {e}", e) from e
    found = module
    for part in name.split("."):
        if not hasattr(found, part):
            close = difflib.get_close_matches(part, dir(found), n=1)
            raise InvalidInput(
                f"{module_name} has no {name!r}.", hints=[f"did you mean {c!r}?" for c in close]
            )
        found = getattr(found, part)
    return found


def _read(target: str, result: Any) -> Made:
    match result:
        case torch.nn.Module():
            return Made(result)
        case (torch.nn.Module() as module,):
            return Made(module)
        case (torch.nn.Module() as module, tuple() as args):
            return Made(module, args)
        case (torch.nn.Module() as module, dict() as kwargs):
            return Made(module, (), kwargs)
        case (torch.nn.Module() as module, tuple() as args, dict() | None as kwargs):
            return Made(module, args, kwargs or {})
    shown = type(result).__name__
    if isinstance(result, tuple):
        shown = f"({', '.join(type(r).__name__ for r in result)})"
    raise InvalidInput(f"{target} returned {shown}.", why=_FORMS)
