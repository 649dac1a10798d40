"""Every program of the corpus gives on the machine what it gives on CPython, on each Python that
this computer has; the stack effect of every instruction is checked on the way."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import os
import subprocess
import sys
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import pytest

from stillframe.frames import interpret, traceback

ROOT = Path(__file__).resolve().parent.parent.parent
RUNNER = Path(__file__).resolve().parent / "corpus" / "runner.py"


def other_pythons() -> list[Path]:
    """Interpreters of other supported versions: from PATH, and from pyenv's folder."""
    found = {}
    for version in ("3.12", "3.13"):
        folders = [Path(p) for p in os.environ.get("PATH", "").split(os.pathsep) if p]
        candidates = [
            folder / f"python{version}" for folder in folders if "shims" not in str(folder)
        ]
        root = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
        candidates += sorted(root.glob(f"{version}.*/bin/python3"))
        found[version] = next((path for path in candidates if path.exists()), None)
    return [path for path in found.values() if path is not None]


def load_runner() -> ModuleType:
    spec = importlib.util.spec_from_file_location("frames_corpus_runner", RUNNER)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("python", [Path(sys.executable), *other_pythons()], ids=str)
def test_programs_agree(python: Path) -> None:
    done = subprocess.run(
        [str(python), str(RUNNER)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "STILLFRAME_CHECK_FRAMES": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    agreed, _, total, *_ = done.stdout.split()
    assert agreed == total and int(total) >= 600


def test_a_difference_is_seen() -> None:
    """The comparison itself: a program that tells the two apart is reported."""
    runner = load_runner()

    def same() -> bool:
        return __debug__

    def machine_only() -> Any:
        return [frame.f_code.co_name for frame in _stack()]

    assert runner.compare(runner.Program("same", same)) == ""
    assert "result" in runner.compare(runner.Program("different", machine_only))


def _stack() -> list[FrameType]:
    found, frame = [], sys._getframe(1).f_back
    while frame is not None:
        found.append(frame)
        frame = frame.f_back
    return found


def test_the_standard_library_is_interpreted() -> None:
    """No Python function of the ten modules runs natively."""
    runner = load_runner()
    programs = [p for p in runner.programs() if p.name.startswith("stdlib_modules.")]
    files = set(programs[0].function.__globals__["FILES"])
    native: set[str] = set()

    def watch(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        if event == "call" and code.co_filename in files:
            caller = frame.f_back
            if caller is None or caller.f_code is not traceback.stub_frame.__code__:
                native.add(code.co_qualname)

    for program in programs:
        function = interpret(program.function)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.suppress(ValueError):
            sys.setprofile(watch)
            try:
                function()
            finally:
                sys.setprofile(None)
    assert len(programs) >= 20
    assert native <= {"Template.__init_subclass__"}  # type.__new__ calls it: see docs/frames.md
