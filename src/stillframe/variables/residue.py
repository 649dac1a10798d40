"""What is left of a frame beside its graph, as one Python function.

It reads the inputs of the graph from where they came, calls the graph, makes the frame's result and
what its side effects need, and then does the side effects. All places are read before any is
written. The function is generated as text, one step a line: a value has a variable of its own, so
order is what it looks like.
"""

from __future__ import annotations

import keyword
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from stillframe.errors import FrameError
from stillframe.frames.frame import NULL
from stillframe.guards.helpers import HELPERS
from stillframe.source import Source
from stillframe.variables.base import typestr
from stillframe.variables.side_effects import DELETED, Effect, fill, leave

if TYPE_CHECKING:
    from stillframe.variables.base import VariableTracker

_PLAIN = (int, float, bool, str, bytes, type(None))


class Residue:
    """Writes the function. The methods that push are those of ``source.Codegen``, and those with
    which a :class:`~stillframe.variables.base.VariableTracker` makes its value again.

    Args:
        variable: gives what goes with a value.
    """

    def __init__(self, variable: Callable[[Any], VariableTracker]) -> None:
        self._variable = variable
        self._lines: list[str] = []
        self._late: list[str] = []
        self._stack: list[str] = []
        self._names: dict[str, Any] = {}
        self._bound: dict[int, str] = {}
        self._read: dict[Source, str] = {}
        self._made: dict[int, tuple[Any, str]] = {}
        self._making: dict[int, Any] = {}
        self._waiting: list[tuple[str, str, tuple[Any, ...]]] = []
        self._incomplete: set[str] = set()
        self._count = 0
        self._results = ""
        self.outputs: dict[int, tuple[int, Any]] = {}

    # -- reading places -----------------------------------------------------------------------

    def load(self, source: Source) -> None:
        """Push the value of a source, which is read once."""
        known = self._read.get(source)
        if known is None:
            source.reconstruct(self)
            known = self._read[source] = self._stack.pop()
        self._stack.append(known)

    def load_local(self, name: str, is_cell: bool) -> None:
        """Push a local of the frame, or what is in a cell or free variable of it."""
        self.push(f"L[{name!r}]")

    def load_global(self, name: str) -> None:
        """Push a global of the frame."""
        self.push(f"G[{name!r}]")

    def load_constant(self, value: Any) -> None:
        """Push a value that is known now."""
        plain = type(value) in _PLAIN and (type(value) is not float or value - value == 0)
        self._stack.append(repr(value) if plain else self.bind("constant", value))

    def load_object(self, value: Any) -> None:
        """Push an object that lasts: a class, a function, a helper of ours."""
        self._stack.append(self.bind(getattr(value, "__name__", "object"), value))

    def load_helper(self, name: str) -> None:
        """Push a function of ``stillframe.guards.helpers``."""
        self.load_object(HELPERS[name])

    def load_random_value(self, index: int) -> None:
        """Push the ``index``-th number that this call has drawn."""
        self.push(f"random_values[{index}]")

    def load_attr(self, name: str) -> None:
        """Replace the top by one of its attributes."""
        base = self._stack.pop()
        plain = name.isidentifier() and name.isascii() and not keyword.iskeyword(name)
        self.push(f"{base}.{name}" if plain else f"getattr({base}, {name!r})")

    def load_item(self) -> None:
        """Replace container and key by the item."""
        key, container = self._stack.pop(), self._stack.pop()
        self.push(f"{container}[{key}]")

    def call(self, count: int, names: Sequence[str] = ()) -> None:
        """Replace a function and ``count`` arguments by the result.

        Args:
            names: of the last arguments, which are passed by name.
        """
        args = self._take(count)
        split = count - len(names)
        named = [f"**{{{name!r}: {arg}}}" for name, arg in zip(names, args[split:], strict=True)]
        self.push(f"{self._stack.pop()}({', '.join([*args[:split], *named])})")

    # -- making values ------------------------------------------------------------------------

    def value(self, value: Any) -> None:
        """Push a value of the program: read where it came from, or made again."""
        variable = self._variable(value)
        if variable.source is not None:
            self.load(variable.source)
            return
        known = self._made.get(id(value))
        if known is None:
            self._make(value, variable)
        else:
            self._stack.append(known[1])

    def _make(self, value: Any, variable: VariableTracker) -> None:
        self._making[id(value)] = value
        try:
            variable.reconstruct(self)
        except NotImplementedError as e:
            if isinstance(e, FrameError):
                raise
            raise FrameError(
                f"The frame gives away a value that cannot be made again: {typestr(value)}.",
                why=str(e) or "only its class knows how it was made",
                hints=["return the tensors and numbers that it was made from"],
            ) from e
        finally:
            del self._making[id(value)]
        if not variable.is_python_constant():
            self._made[id(value)] = value, self._stack[-1]
        if not self._making:
            self._fill_waiting()

    def keep(self, value: Any) -> None:
        """The value is on top now, maybe not filled yet: what it holds may refer to it."""
        self._made[id(value)] = value, self._stack[-1]

    def fill(self, template: str, *values: Any) -> None:
        """Put values into the container on top, which stays there: ``"{0}.append({1})"``.

        What belongs to a tuple or function that is being made waits until that is there.
        """
        container = self._stack[-1]
        waits = container in self._incomplete or any(map(self._is_in_the_making, values))
        if waits:
            self._incomplete.add(container)
            self._waiting.append((container, template, values))
        else:
            self._fill(container, template, values)

    def _is_in_the_making(self, value: Any) -> bool:
        if id(value) in self._made:
            return False
        if id(value) in self._making:
            return True
        return isinstance(value, tuple | frozenset) and any(map(self._is_in_the_making, value))

    def _fill(self, container: str, template: str, values: tuple[Any, ...]) -> None:
        self._stack.append(container)
        for value in values:
            self.value(value)
        self.do(template, 1 + len(values))

    def _fill_waiting(self) -> None:
        self._incomplete.clear()
        while self._waiting:
            self._fill(*self._waiting.pop(0))

    def push(self, expression: str) -> None:
        """Push the value of an expression, evaluated here."""
        self._count += 1
        name = f"v{self._count}"
        self._lines.append(f"{name} = {expression}")
        self._stack.append(name)

    def build(self, form: str, count: int) -> None:
        """Replace ``count`` values by what ``form`` makes of them: ``"[{}]"`` a list."""
        self.push(form.format(", ".join(self._take(count))))

    def do(self, template: str, count: int) -> None:
        """Take ``count`` values off for a statement: ``"{0}[{1}] = {2}"``."""
        self._lines.append(template.format(*self._take(count)))

    def dup(self) -> None:
        """Push the top once more."""
        self._stack.append(self._stack[-1])

    def bind(self, wanted: str, value: Any) -> str:
        """The name under which the function finds an object."""
        name = self._bound.get(id(value))
        if name is None:
            cleaned = "".join(c if c.isascii() and c.isalnum() else "_" for c in wanted)
            name = self._bound[id(value)] = f"_{cleaned}_{len(self._names)}"
            self._names[name] = value
        return name

    def _take(self, count: int) -> list[str]:
        if not count:
            return []
        taken = self._stack[-count:]
        del self._stack[-count:]
        return taken

    def run_graph(self, inputs: Sequence[Any]) -> None:
        """Call the graph with the values of its inputs.

        Args:
            inputs: each with a ``reconstruct`` that pushes its value.
        """
        for argument in inputs:
            argument.reconstruct(self)
        self.push(f"graph({', '.join(self._take(len(inputs)))})")
        self._results = self._stack.pop()

    def graph_output(self, value: Any) -> None:
        """Push a value that the graph computes; it becomes one of its results."""
        known = self.outputs.setdefault(id(value), (len(self.outputs), value))
        self.push(f"{self._results}[{known[0]}]")

    # -- side effects -------------------------------------------------------------------------

    def effect(self, effect: Effect) -> None:
        """Make the values that a side effect needs, and do it at the end."""
        getattr(self, f"_{effect.kind}")(effect)

    def _target(self, effect: Effect) -> str:
        assert effect.target is not None
        self.load(effect.target)
        return self._stack.pop()

    def _new(self, value: Any) -> str:
        self.value(value)
        return self._stack.pop()

    def _attribute(self, effect: Effect) -> None:
        target, name = self._target(effect), repr(effect.name)
        if effect.value is DELETED:
            self._late.append(f"{self.bind('drop', _drop)}({target}, {name})")
        elif effect.value is NULL:
            self._late.append(f"{self.bind('delattr', _delete)}({target}, {name})")
        else:
            store = self.bind("setattr", _store)
            self._late.append(f"{store}({target}, {name}, {self._new(effect.value)})")

    def _contents(self, effect: Effect) -> None:
        target = self._target(effect)
        items = self._new(effect.value)
        self._late.append(f"{self.bind('fill', fill)}({target}, {items})")

    def _iterator(self, effect: Effect) -> None:
        target = self._target(effect)
        self._late.append(f"{self.bind('leave', leave)}({target}, {effect.value})")

    def _cell(self, effect: Effect) -> None:
        target = self._target(effect)
        if effect.value is NULL:
            self._late.append(f"del {target}.cell_contents")
        else:
            self._late.append(f"{target}.cell_contents = {self._new(effect.value)}")

    def _global(self, effect: Effect) -> None:
        table, name = self._target(effect), repr(effect.name)
        if effect.value is NULL:
            self._late.append(f"del {table}[{name}]")
        else:
            self._late.append(f"{table}[{name}] = {self._new(effect.value)}")

    def _call(self, effect: Effect) -> None:
        function, args, kwargs = effect.value
        called, given = self._new(function), self._new(tuple(args))
        self._late.append(f"{called}(*{given}, **{self._new(kwargs)})")

    # -- the function -------------------------------------------------------------------------

    def finish(self, graph: Any) -> tuple[str, Callable[..., Any]]:
        """The text and the function ``(L, G) -> result``; the result is on the stack.

        Args:
            graph: what ``graph`` means in the text.
        """
        (result,) = self._stack
        lines = ["def run(L, G):", *self._lines, *self._late, f"return {result}"]
        text = "\n    ".join(lines) + "\n"
        namespace = {**self._names, "graph": graph}
        exec(compile(text, f"<stillframe residue {id(self):#x}>", "exec"), namespace)
        return text, namespace["run"]


def _store(target: Any, name: str, value: Any) -> None:
    from stillframe.frames.attributes import native_store

    native_store(target, name, value)


def _drop(tensor: Any, name: str) -> None:
    """Delete an attribute of a tensor, which may have been set by the frame only."""
    if name == "grad":
        tensor.grad = None
    else:
        vars(tensor).pop(name, None)


def _delete(target: Any, name: str) -> None:
    from stillframe.frames.attributes import native_delete

    native_delete(target, name)
