"""The house is built as drawn: lower floors never import upper ones, and nothing but two named
places touches torch's own capture stack, not even inside a function."""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SOURCE = ROOT / "src" / "stillframe"
FILES = sorted(SOURCE.rglob("*.py"))

#: torch's capture stack: what this project writes itself.
FORBIDDEN = (
    "torch._dynamo",
    "torch.export",
    "torch._export",
    "torch._guards",
    "torch._subclasses",
    "torch._functorch",
    "torch._inductor",
    "torch.fx.experimental",
)
#: Where it may be imported, lazily, inside functions.
ALLOWED = ("interop/", "fake/fallback.py")


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, module) of all imports, by statement, by ``import_module`` and by attribute path."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, node.module or ""
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and ast.unparse(node.func).endswith(
            ("import_module", "__import__")
        ):
            if node.args and isinstance(node.args[0], ast.Constant):
                yield node.lineno, str(node.args[0].value)
        elif isinstance(node, ast.Attribute):  # torch._dynamo.x needs no import statement
            yield node.lineno, ast.unparse(node)


def is_below(module: str, root: str) -> bool:
    return module == root or module.startswith(root + ".")


def relative(path: Path) -> str:
    return path.relative_to(SOURCE).as_posix()


def test_the_walk_sees_every_form() -> None:
    text = """
import torch._dynamo.utils
from torch import _guards
def f():
    from torch.fx.experimental.symbolic_shapes import x
    importlib.import_module("torch._subclasses")
    torch._inductor.compile
"""
    found = {name for _, name in imports(ast.parse(text))}
    for root in ("_dynamo", "_guards", "fx.experimental", "_subclasses", "_inductor"):
        assert any(is_below(name, f"torch.{root}") for name in found), root


@pytest.mark.parametrize("path", FILES, ids=relative)
def test_no_capture_stack_of_torch(path: Path) -> None:
    if relative(path).startswith(ALLOWED):
        pytest.skip("one of the two places that may")
    found = [
        f"line {line}: {name}"
        for line, name in imports(ast.parse(path.read_text(encoding="utf-8")))
        if any(is_below(name, root) for root in FORBIDDEN)
    ]
    assert not found, f"{relative(path)} reaches into torch's capture stack: {'; '.join(found)}"


@pytest.mark.parametrize("name", [n for n in map(relative, FILES) if n.startswith(ALLOWED)])
def test_the_exceptions_import_lazily(name: str) -> None:
    tree = ast.parse((SOURCE / name).read_text(encoding="utf-8"))
    top = ast.Module([n for n in tree.body if isinstance(n, (ast.Import, ast.ImportFrom))], [])
    found = [n for _, n in imports(top) if any(is_below(n, root) for root in FORBIDDEN)]
    assert not found, f"{name} imports {found} at the top: do it inside the function"


@pytest.mark.parametrize(
    "name", [n for n in map(relative, FILES) if n.startswith(("symbolic/", "frames/"))]
)
def test_no_torch_below(name: str) -> None:
    found = [n for _, n in imports(ast.parse((SOURCE / name).read_text())) if is_below(n, "torch")]
    assert not found


def test_floors() -> None:
    """The order in pyproject.toml, for imports at any depth of the code."""
    contract = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    (layers,) = [c["layers"] for c in contract["contracts"] if c["type"] == "layers"]
    height = {
        name.strip(" ()"): len(layers) - i
        for i, layer in enumerate(layers)
        for name in layer.split("|")
    }
    wrong = []
    for path in FILES:
        floor = path.relative_to(SOURCE).parts[0].removesuffix(".py")
        if floor == "__init__":
            continue  # the package itself only names the public things
        assert floor in height, f"{floor} has no place among the floors of pyproject.toml"
        for line, module in _imports_outside_type_checking(path):
            parts = module.split(".")
            if parts[0] == "stillframe" and len(parts) > 1 and parts[1] in height:
                if height[parts[1]] > height[floor]:
                    wrong.append(f"{relative(path)}:{line} imports {module}")
    assert not wrong, "lower floors must not import upper ones:\n" + "\n".join(wrong)


def _imports_outside_type_checking(path: Path) -> Iterator[tuple[int, str]]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING"):
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, (ast.Import, ast.ImportFrom)):
            yield from imports(ast.Module([node], []))
