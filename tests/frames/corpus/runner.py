"""Run every program on CPython and on the frame machine, and compare.

``python runner.py`` prints what differs and ends with status 1 if anything does; it is run so on
other interpreters, where pytest may not be installed.
"""

from __future__ import annotations

import contextlib
import dis
import importlib.util
import io
import re
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

HERE = Path(__file__).resolve().parent


class Program(NamedTuple):
    """A function to run, and the name to show."""

    name: str
    function: Callable[[], Any]


class Outcome(NamedTuple):
    """All that can be seen of a run."""

    result: str
    output: str
    error: str
    lines: list[tuple[str, int]]


def _wanted(path: Path) -> bool:
    """``since_312_x.py`` has syntax that older Pythons do not have."""
    found = re.match(r"since_3(\d+)_", path.name)
    return found is None or sys.version_info >= (3, int(found[1]))


def programs() -> Iterator[Program]:
    """All programs that this Python can run, by file and in order."""
    for path in sorted(HERE.glob("*.py")):
        if path.stem in ("__init__", "runner") or not _wanted(path):
            continue
        module = _load(path)
        for name, value in list(vars(module).items()):
            if name.startswith("case_"):
                yield Program(f"{path.stem}.{name[5:]}", value)
        for text in getattr(module, "EXPRESSIONS", ()):
            yield Program(f"{path.stem}: {text}", _expression(text, module))


def _load(path: Path) -> Any:
    name = f"frames_corpus_{path.stem}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _expression(text: str, module: Any) -> Callable[[], Any]:
    names = dict(vars(module))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # some are wrong on purpose
        code = compile(f"def expression():\n return (\n{text}\n)", "<expression>", "exec")
    exec(code, names)
    return names["expression"]  # type: ignore[no-any-return]


def _text(value: Any) -> str:
    return re.sub(r"0x[0-9a-f]+", "0x", repr(value))


def outcome(function: Callable[[], Any], file: str) -> Outcome:
    """Run, catching everything; ``file`` is the one whose lines are compared."""
    output = io.StringIO()
    result = error = ""
    lines: list[tuple[str, int]] = []
    with contextlib.redirect_stdout(output), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            result = _text(function())
        except BaseException as e:
            error = _chain(e)
            lines = [
                (entry.name, entry.lineno or 0)
                for entry in traceback.extract_tb(e.__traceback__)
                if entry.filename == file
            ]
    return Outcome(result, output.getvalue(), error, lines)


def _chain(error: BaseException | None, seen: int = 0) -> str:
    """Type and arguments of an exception and of those behind it."""
    if error is None or seen > 5:
        return "-"
    own = f"{type(error).__qualname__}{_text(error.args)}"
    if isinstance(error, BaseExceptionGroup):
        own += "".join(f"[{_chain(e, seen + 1)}]" for e in error.exceptions)
    hidden = " (hidden)" if error.__suppress_context__ else ""
    cause = _chain(error.__cause__, seen + 1)
    context = _chain(error.__context__, seen + 1)
    return f"{own} cause {cause} context{hidden} {context}"


def compare(program: Program) -> str:
    """What differs between CPython and the machine, as text; empty if nothing does."""
    from stillframe.frames import interpret

    file = program.function.__code__.co_filename
    wanted = outcome(program.function, file)
    got = outcome(interpret(program.function), file)
    return "\n".join(
        f"  {field}: CPython {a!r}\n  {' ' * len(field)}  machine {b!r}"
        for field, a, b in zip(Outcome._fields, wanted, got, strict=True)
        if a != b
    )


def main() -> int:
    """Run all; also, every instruction of this Python must be known to the machine."""
    from stillframe.frames.versions import missing, table

    unknown = missing(table(), dis.opmap)
    if unknown:
        print(f"instructions without a handler: {unknown}")
        return 1
    failed = count = 0
    for program in programs():
        count += 1
        difference = compare(program)
        if difference:
            failed += 1
            print(f"{program.name}\n{difference}")
    print(f"{count - failed} of {count} programs agree")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
