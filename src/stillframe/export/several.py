"""Several graphs, one program: captures of one module that share its tensors.

A graph fits some calls: dtypes, ranks, ranges of sizes, constants, modes. :func:`combine` puts
captures of one module together, so that each call goes to the first graph that it fits; and
captures of several methods, which become the methods of one module.
"""

from __future__ import annotations

import copy
import keyword
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from stillframe.errors import InvalidInput, NotSupported
from stillframe.export import new_state
from stillframe.export.call_spec import CallParameter
from stillframe.export.door import same_constant
from stillframe.export.program import ExportedProgram
from stillframe.export.runner import ProgramModule, StateEntry, build_module_of, state_entries
from stillframe.export.sharing import shared_state
from stillframe.export.verify import VerificationReport


def combine(
    *programs: ExportedProgram, **methods: ExportedProgram | Sequence[ExportedProgram]
) -> ProgramSet:
    """Put captures of one module together.

        small = sf.export(model, (x[:1],))
        large = sf.export(model, (x,), dynamic_shapes={"x": {0: sf.Dim("batch", min=2)}})
        encode = sf.export(model.encode, (x,))
        module = sf.combine(small, large, encode=encode).module()

    Args:
        programs: captures of ``forward``. A call goes to the first one that it fits.
        methods: captures of other methods, by the name under which they are called; one, or a
            list of which the first that fits is taken. ``forward=`` adds to ``programs``.

    Returns:
        One object whose programs hold the same tensors. Buffers that any of them writes are
        written for all.

    Raises:
        InvalidInput: no program; a name that cannot be a method; programs that are not of one
            module: they hold different tensors under one name, or take other parameters.
    """
    named: dict[str, list[ExportedProgram]] = {"forward": list(programs)} if programs else {}
    for name, given in methods.items():
        several: Any = given if isinstance(given, (list, tuple)) else [given]
        named.setdefault(name, []).extend(several)
    for name, found in named.items():
        for program in found:
            if not isinstance(program, ExportedProgram):
                raise InvalidInput(
                    f"{name}: combine takes exported programs, got {type(program).__name__}."
                )
    _check_one_module([program for found in named.values() for program in found])
    shared = iter(shared_state([program for found in named.values() for program in found]))
    return ProgramSet({name: [next(shared) for _ in found] for name, found in named.items()})


class ProgramSet:
    """Several captures of one module. Read-only; made by :func:`combine` and ``stillframe.load``.

    Attributes:
        methods: name of a method -> its programs, in the order in which they are tried. The
            programs hold the same tensors.
    """

    def __init__(self, methods: Mapping[str, Sequence[ExportedProgram]]) -> None:
        self.methods = {name: tuple(programs) for name, programs in methods.items()}
        if not self.methods or not all(self.methods.values()):
            raise InvalidInput("combine needs at least one program.")
        _check_one_module(self.programs)
        for name, programs in self.methods.items():
            _check_parameters(name, programs)
        self._check_state()
        _check_names(self.methods, self._entries)

    @property
    def programs(self) -> list[ExportedProgram]:
        """All programs, method by method."""
        return [program for programs in self.methods.values() for program in programs]

    @property
    def root_class(self) -> str:
        """The class of the module."""
        return self.programs[0].root_class

    @property
    def state_dict(self) -> Mapping[str, Any]:
        """Parameters and persistent buffers by FQN, which all programs share."""
        return self.programs[0].state_dict

    @property
    def constants(self) -> dict[str, Any]:
        """Non-persistent buffers and constants of all programs by FQN."""
        found: dict[str, Any] = {}
        for program in self.programs:
            found |= program.constants
        return found

    def module(self) -> torch.nn.Module:
        """One module with all methods; each call goes to the first graph that it fits.

        Where both modes were captured, ``train()`` and ``eval()`` choose among the graphs.

        A call that no graph takes raises :class:`~stillframe.errors.CallError`, which says of each
        graph what did not fit.
        """
        for program in self.programs:
            program.verify_weights()
        return build_module_of(self.methods)

    def with_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True) -> ProgramSet:
        """The same graphs with other weights; see :meth:`ExportedProgram.with_state_dict`."""
        programs = iter(new_state.with_state_dict(self.programs, state_dict, strict))
        return ProgramSet({n: [next(programs) for _ in ps] for n, ps in self.methods.items()})

    def verify(
        self, mod: torch.nn.Module, samples: int = 3, seed: int = 0
    ) -> dict[str, VerificationReport]:
        """:meth:`ExportedProgram.verify` of each program, by title; ``mod`` in the mode of each.

        Raises:
            VerificationError: a program and the module differ.
            InvalidInput: the module has no such method.
        """
        reports = {}
        flags = [(part, part.training) for part in mod.modules()]
        try:
            for title, (name, program) in self._titled().items():
                method = mod if name == "forward" else getattr(mod, name, None)
                if not callable(method):
                    raise InvalidInput(f"The module has no method {name!r}.")
                if mod.training != program.training:
                    mod.train(program.training)
                reports[title] = program.verify(method, samples, seed)
        finally:
            for part, training in flags:
                part.training = training
        return reports

    def titles(self) -> dict[str, ExportedProgram]:
        """Each program by a name for people: ``forward``, or ``forward, graph 1 of 2``."""
        return {title: program for title, (_, program) in self._titled().items()}

    def _titled(self) -> dict[str, tuple[str, ExportedProgram]]:
        found = {}
        for name, programs in self.methods.items():
            for number, program in enumerate(programs, 1):
                of = f", graph {number} of {len(programs)}" if len(programs) > 1 else ""
                found[name + of] = (name, program)
        return found

    def __str__(self) -> str:
        return "\n\n".join(f"{title}:\n{program}" for title, program in self.titles().items())

    def __repr__(self) -> str:
        counts = ", ".join(f"{n}: {len(p)}" for n, p in self.methods.items())
        return f"<ProgramSet of {self.root_class} ({counts}); print() shows it>"

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise NotSupported(
            "A ProgramSet is not called itself.", hints=["programs.module()(*args, **kwargs)"]
        )

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise NotSupported(
            "A ProgramSet is not pickled.",
            hints=["stillframe.save(programs, path) and stillframe.load(path)"],
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> ProgramSet:
        return ProgramSet(copy.deepcopy(self.methods, memo))

    # -- checks -------------------------------------------------------------------------------

    @property
    def _entries(self) -> list[StateEntry]:
        return [entry for program in self.programs for entry in state_entries(program)]

    def _check_state(self) -> None:
        """A name is the same kind of state in all programs."""
        kinds: dict[str, StateEntry] = {}
        for entry in self._entries:
            known = kinds.setdefault(entry.fqn, entry)
            if known != entry:
                raise InvalidInput(
                    f"{entry.fqn} is {_kind(known)} in one program and {_kind(entry)} in another."
                )


def _kind(entry: StateEntry) -> str:
    return f"a {'' if entry.persistent else 'non-persistent '}{entry.kind.name.lower()}"


def _check_one_module(programs: Sequence[ExportedProgram]) -> None:
    """Captures of one module have all of its state, used or not."""
    for program in programs[1:]:
        different = sorted({*programs[0].state_dict} ^ {*program.state_dict})
        if program.root_class != programs[0].root_class or different:
            names = f"; only one of them has {', '.join(different[:5])}" if different else ""
            raise InvalidInput(
                f"The programs are not of one module: {programs[0].root_class} and "
                f"{program.root_class}{names}.",
                hints=["export a method of the same module: stillframe.export(module.method, ...)"],
            )


def _check_parameters(name: str, programs: Sequence[ExportedProgram]) -> None:
    """A call is passed on from graph to graph, so all take the same parameters."""
    first = programs[0].call_spec
    for program in programs[1:]:
        spec = program.call_spec
        same = len(spec.parameters) == len(first.parameters) and all(
            map(_same_parameter, spec.parameters, first.parameters)
        )
        if not same:
            raise InvalidInput(
                f"{name}: one program takes {first}, another takes {spec}.",
                why="graphs of one method take the same parameters with the same defaults",
                hints=["give captures of another method under its own name"],
            )


def _same_parameter(a: CallParameter, b: CallParameter) -> bool:
    return (a.name, a.kind, a.has_default) == (b.name, b.kind, b.has_default) and same_constant(
        a.default, b.default
    )


def _check_names(methods: Mapping[str, Any], entries: Sequence[StateEntry]) -> None:
    """A method is called by its name, so nothing else may be there."""
    state = {entry.fqn.partition(".")[0] for entry in entries}
    for name in methods:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise InvalidInput(f"{name!r} cannot be the name of a method.")
        if name == "forward":
            continue
        owner = (
            "is the name of a part of the module" if name in state
            else "is an attribute that every module has" if _is_of_modules(name)
            else ""
        )  # fmt: skip
        if owner:
            raise InvalidInput(
                f"{name!r} {owner}, and cannot be a method of it.", hints=["choose another name"]
            )


def _is_of_modules(name: str) -> bool:
    return hasattr(ProgramModule, name) or name in vars(torch.nn.Module()) or name[:2] == "__"
