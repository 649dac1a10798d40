"""The seam between running bytecode and what values mean.

Everything that an instruction does with a value goes through a method of :class:`Policy`; the
defaults are plain Python. A policy with values of its own (symbolic ones, tracked ones) overrides
the methods that it cares about. Fast paths of the opcode handlers look at exact built-in types
only, so a value of any other type always comes here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import CellType, FunctionType
from typing import TYPE_CHECKING, Any

from stillframe.frames import arithmetic, attributes, iteration
from stillframe.frames.frame import NULL
from stillframe.frames.lookup import python_special

if TYPE_CHECKING:
    from stillframe.frames.frame import Frame
    from stillframe.frames.machine import Machine
    from stillframe.frames.versions import Operator

#: Built-in classes of values that ``+=`` does not change.
IMMUTABLE: frozenset[type] = frozenset(
    {int, float, complex, bool, str, bytes, type(None), tuple, frozenset}
)

#: C modules of the standard library whose functions do no harm: what they do is seen in their
#: results, or is output that the program asked for. Those that call back into Python are handled
#: in ``natives/``.
HARMLESS = frozenset(
    """builtins math cmath _operator operator itertools functools _functools collections
    _collections _collections_abc _struct struct _sre re _json _datetime datetime _decimal decimal
    unicodedata zlib binascii _io io _bisect _heapq _random random _statistics _string string
    _codecs codecs _csv array _weakref weakref weakrefset types typing _typing _abc abc enum
    os _hashlib _md5 _sha1 _sha2 _sha256 _sha512 _sha3 _blake2 time copy copyreg _pickle
    _locale locale posix nt posixpath ntpath _stat stat errno marshal _imp _warnings warnings
    sys fractions numbers contextvars _contextvars _ast ast _tokenize _opcode _symtable pathlib
    textwrap keyword token _uuid _queue _thread _bz2 _lzma graphlib _suggestions""".split()
)


class Policy:
    """Plain Python. Override to give values another meaning.

    Attributes:
        machine: set by the machine that the policy is given to.
        allowed: C modules whose functions may be called.
        open_containers: exact classes whose items handlers take themselves.
        open_operands: exact classes of left operands to which handlers apply operators themselves.
        open_iterators: whether loops take items from C's iterators over built-ins themselves.
    """

    machine: Machine

    def __init__(self) -> None:
        self.allowed: frozenset[str] = HARMLESS
        self.open_containers: frozenset[type] = frozenset({list, tuple, str, bytes, range})
        self.open_operands: frozenset[type] = IMMUTABLE
        self.open_iterators = True

    # -- branches and identity ----------------------------------------------------------------

    def truth(self, value: Any) -> bool:
        """What ``if value`` decides. Every branch of the program on a value ends here."""
        return arithmetic.truth(self, value)

    def branch(
        self, frame: Frame, value: Any, if_true: int, if_false: int, keeps: bool | None = None
    ) -> int:
        """Where a conditional jump on ``value``, which is off the stack, goes on.

        Args:
            if_true, if_false: the two instructions that it may go to.
            keeps: the answer for which the value is put back on the stack.

        Returns:
            An instruction, or ``LEAVE`` where the frame is to be left with the value on top of its
            stack. A policy that runs both ways answers the place where they meet.
        """
        answer = self.truth(value)
        if answer is keeps:
            frame.stack.append(value)
        return if_true if answer else if_false

    def boolean(self, value: Any) -> Any:
        """``bool(value)``, as a value."""
        return self.truth(value)

    def negated(self, value: Any) -> Any:
        """``not value``, as a value."""
        return not self.truth(value)

    def same(self, left: Any, right: Any) -> bool:
        """``left is right``."""
        return left is right

    # -- operators ----------------------------------------------------------------------------

    def binary(self, op: Operator, left: Any, right: Any) -> Any:
        """``left + right``, ``left += right`` and so on."""
        return arithmetic.binary(self, op, left, right)

    def compare(self, op: Operator, left: Any, right: Any) -> Any:
        """``left < right`` and so on."""
        return arithmetic.compare(self, op, left, right)

    def unary(self, method: str, native: Any, value: Any) -> Any:
        """``-value``, ``+value``, ``~value``."""
        return arithmetic.unary(self, method, native, value)

    def contains(self, container: Any, value: Any) -> bool:
        """``value in container``."""
        return arithmetic.contains(self, container, value)

    def load_item(self, container: Any, key: Any) -> Any:
        """``container[key]``."""
        return arithmetic.load_item(self, container, key)

    def store_item(self, container: Any, key: Any, value: Any) -> None:
        """``container[key] = value``."""
        arithmetic.store_item(self, container, key, value)

    def delete_item(self, container: Any, key: Any) -> None:
        """``del container[key]``."""
        arithmetic.delete_item(self, container, key)

    # -- attributes ---------------------------------------------------------------------------

    def load_attr(self, value: Any, name: str) -> Any:
        """``value.name``."""
        return attributes.load(self, value, name)

    def load_attr_or(self, value: Any, name: str, default: Any) -> Any:
        """``getattr(value, name, default)``."""
        try:
            return self.load_attr(value, name)
        except AttributeError:
            return default

    def store_attr(self, target: Any, name: str, value: Any) -> None:
        """``target.name = value``."""
        attributes.store(self, target, name, value)

    def delete_attr(self, target: Any, name: str) -> None:
        """``del target.name``."""
        attributes.delete(self, target, name)

    def set_attribute(self, target: Any, name: str, value: Any) -> None:
        """The store itself, after hooks and descriptors in Python had their say."""
        attributes.native_store(target, name, value)

    def unset_attribute(self, target: Any, name: str) -> None:
        """The deletion itself."""
        attributes.native_delete(target, name)

    def special(self, value: Any, name: str) -> Any:
        """A special method, which is looked up on the type, bound to ``value``."""
        return attributes.special(self, value, name)

    def hashed(self, values: Sequence[Any]) -> None:
        """Values are about to be elements of a set or keys of a dict, which C code compares."""

    # -- iteration ----------------------------------------------------------------------------

    def iterate(self, value: Any) -> Any:
        """``iter(value)``."""
        return iteration.iterate(self, value)

    def advance(self, iterator: Any, default: Any) -> Any:
        """``next(iterator, default)``."""
        return iteration.advance(self, iterator, default)

    def step(self, frame: Frame, target: int) -> int | None:
        """One step of a ``for`` loop over the iterator on the stack: None to run the body, or where
        to go on. An iterator that is exhausted is taken off, and ``target`` is next."""
        value = self.advance(frame.stack[-1], NULL)
        if value is NULL:
            frame.stack.pop()
            return target
        frame.stack.append(value)
        return None

    def next(self, iterator: Any) -> Any:
        """``next(iterator)``."""
        return iteration.next_(self, iterator)

    def elements(self, values: Sequence[Any]) -> Sequence[Any]:
        """What is in a tuple or a list, of exactly these classes, that is unpacked."""
        return values

    def is_iterable(self, value: Any) -> bool:
        """Whether ``iter(value)`` would work."""
        return iteration.is_iterable(value)

    def native_iterable(self, value: Any) -> Any:
        """``value``, or an iterator over it that C code may run: Python code behind it runs on
        the machine."""
        kind = type(value)
        if python_special(kind, "__iter__") or python_special(kind, "__next__"):
            return self._relay(value)
        if python_special(kind, "__getitem__") and not hasattr(kind, "__iter__"):
            return self._relay(value)
        return value

    def _relay(self, value: Any) -> Iterator[Any]:
        iterator = self.iterate(value)
        while (item := self.advance(iterator, NULL)) is not NULL:
            yield item

    def native_mapping(self, value: Any) -> Any:
        """``value``, or a dict of its items if Python code is behind them."""
        kind = type(value)
        if not (python_special(kind, "keys") or python_special(kind, "__getitem__")):
            return value if hasattr(kind, "items") else dict(value)
        keys = self.call(self.load_attr(value, "keys"), (), {})
        return {key: self.load_item(value, key) for key in self.native_iterable(keys)}

    # -- calls --------------------------------------------------------------------------------

    def call(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """``function(*args, **kwargs)``."""
        return self.machine.call(function, args, kwargs)

    def inline(self, function: FunctionType) -> bool:
        """Whether a Python function is run by the machine; else it is called."""
        return True

    def may_call(self, module: str, function: Any) -> bool:
        """Whether a C function or class of ``module`` may be called. No is an error by name."""
        return module in self.allowed

    # -- names --------------------------------------------------------------------------------

    def load_global(self, frame: Frame, name: str) -> Any:
        """A global of the frame, or a built-in."""
        value = frame.globals.get(name, NULL)
        if value is NULL:
            value = frame.builtins.get(name, NULL)
            if value is NULL:
                raise NameError(f"name '{name}' is not defined", name=name)
        return value

    def store_global(self, frame: Frame, name: str, value: Any) -> None:
        """``global name; name = value``."""
        frame.globals[name] = value

    def delete_global(self, frame: Frame, name: str) -> None:
        """``global name; del name``."""
        if name not in frame.globals:
            raise NameError(f"name '{name}' is not defined", name=name)
        del frame.globals[name]

    def load_cell(self, frame: Frame, cell: CellType, name: str) -> Any:
        """The variable of a closure; :data:`NULL` if it has no value."""
        try:
            return cell.cell_contents
        except ValueError:
            return NULL

    def store_cell(self, frame: Frame, cell: CellType, name: str, value: Any) -> None:
        """Set the variable of a closure; :data:`NULL` deletes it."""
        if value is NULL:
            del cell.cell_contents
        else:
            cell.cell_contents = value

    def new_cell(self, cell: CellType) -> None:
        """A frame has made a variable that closures may share."""

    def new_function(self, function: FunctionType) -> None:
        """A frame has made a function."""

    def kept_back(self, frame: Frame, index: int) -> Any:
        """A local variable that has no value; one that was kept back until now is given here.

        Returns:
            The value, or :data:`NULL`: there is none.
        """
        return NULL

    # -- modules ------------------------------------------------------------------------------

    def import_module(self, frame: Frame, name: str, names: Any, level: int) -> Any:
        """``import name`` and ``from name import names``; modules run as ordinary Python."""
        find = frame.builtins["__import__"]
        return find(name, frame.globals, frame.names, names, level)

    def import_from(self, module: Any, name: str) -> Any:
        """``from module import name``."""
        return attributes.import_from(module, name)
