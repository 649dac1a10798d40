"""What every command shares: one panel for an error, and an exit code that tells its kind."""

from __future__ import annotations

import enum
import functools
from collections.abc import Callable
from typing import Annotated, Any, TypeVar

import typer
from rich.console import Console

from stillframe.errors import SpecViolationError, StillframeError, VerificationError
from stillframe.report.panels import error_panel, internal_error_panel

Function = TypeVar("Function", bound=Callable[..., Any])

#: The option that every command has; the wrapper below reads it.
Traceback = Annotated[
    bool, typer.Option("--traceback", help="Show Python's traceback instead of a panel.")
]


class ExitCode(enum.IntEnum):
    """How the command ended."""

    OK = 0
    NOT_VERIFIED = 1
    DIFFERENT = 1
    USER_ERROR = 2
    INTERNAL_ERROR = 70


def guarded(command: Function) -> Function:
    """``command`` with its exceptions as panels on stderr and as exit codes."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> Any:
        try:
            return command(*args, **kwargs)
        except typer.Exit:
            raise
        except Exception as error:
            if kwargs.get("traceback"):
                Console(stderr=True).print_exception(show_locals=False)
            elif isinstance(error, StillframeError) and not _is_defect(error):
                Console(stderr=True).print(error_panel(error))
            else:
                Console(stderr=True).print(internal_error_panel(error))
            raise typer.Exit(exit_code(error)) from None

    return run  # type: ignore[return-value]


def exit_code(error: BaseException) -> ExitCode:
    """1: the program and the module disagree; 2: the user's; 70: ours."""
    if isinstance(error, VerificationError):
        return ExitCode.NOT_VERIFIED
    return ExitCode.INTERNAL_ERROR if _is_defect(error) else ExitCode.USER_ERROR


def _is_defect(error: BaseException) -> bool:
    """A graph that breaks its own rules was made by stillframe, so that is a defect too."""
    return isinstance(error, SpecViolationError) or not isinstance(error, StillframeError)
