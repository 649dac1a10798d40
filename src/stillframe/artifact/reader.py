"""``load``: a program, or several of one module, from a ``.still`` file.

The file is mapped, not read: tensors are its pages, shared with other processes until they are
written. The JSON and all headers are verified at once, the tensors when they are first looked at
(small files at once). Nothing that a file names is imported or evaluated.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import torch
from torch.utils import _pytree as pytree

from stillframe.artifact import schema
from stillframe.artifact.archive import ArchiveReader
from stillframe.artifact.graph_rows import GraphReader
from stillframe.artifact.tensors import TensorReader
from stillframe.artifact.values import Decoder
from stillframe.artifact.weights import LazyWeights
from stillframe.errors import ArtifactError, InvalidInput, SpecViolationError
from stillframe.export.assumptions import Assumption
from stillframe.export.call_spec import KINDS, CallParameter, CallSpec, GivenArgument
from stillframe.export.containers import rebuild_spec
from stillframe.export.program import ExportedProgram
from stillframe.export.several import ProgramSet
from stillframe.export.signature import (
    ExportGraphSignature,
    InputKind,
    InputSpec,
    ModuleCallEntry,
    ModuleCallSignature,
    OutputKind,
    OutputSpec,
)
from stillframe.export.verdicts import Reason, Verdict
from stillframe.shapes.env import Guard, ShapeEnv, SymbolInfo
from stillframe.symbolic import Contradiction, Expr, Range, symbol

_Doc = TypeVar("_Doc")

EAGER_BYTES = 32 << 20  # smaller files are verified when they are loaded


def load(path: str | os.PathLike[str]) -> ExportedProgram | ProgramSet:
    """The program in the file at ``path``, or the :class:`~stillframe.ProgramSet`, as it was saved.

    Loading runs no code of the file. Large weights are mapped and verified when they are first
    used, by ``program.module()`` or a look into ``program.state_dict``.

    Raises:
        InvalidInput: there is no such file.
        ArtifactError: the file is not an artifact, is damaged, too new, or uses an operator that
            is not registered in this process.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidInput(f"path must be a path, got {type(path).__name__}.")
    place = Path(path)
    if not place.exists():
        raise InvalidInput(f"There is no file {place}.")
    if place.is_dir():
        raise InvalidInput(f"{place} is a directory; load takes one file.")
    try:
        archive = ArchiveReader(place)
    except OSError as e:
        raise InvalidInput(f"{place} cannot be read: {e.strerror}.") from None
    if archive.size <= EAGER_BYTES:
        archive.verify()
    if schema.PROGRAMS in archive:
        return _programs(archive)
    document = _decoded(archive, schema.PROGRAM, schema.ProgramDoc)
    return _Reader(document, _Objects(archive, document)).program()


def _decoded(archive: ArchiveReader, member: str, kind: type[_Doc]) -> _Doc:
    try:
        return msgspec.json.decode(archive.read(member), type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise ArtifactError(
            f"{archive.path} is damaged: its program cannot be read.", why=str(e)
        ) from None


def _programs(archive: ArchiveReader) -> ProgramSet:
    """Several programs, over one table of tensors."""
    document = _decoded(archive, schema.PROGRAMS, schema.ProgramSetDoc)
    objects = _Objects(archive, document)
    numbers: dict[str, int] = {}
    for doc in document.programs:
        for fqn, number in (*doc.state, *doc.constants):
            if numbers.setdefault(fqn, number) != number:
                raise ArtifactError(
                    f"{archive.path} is damaged: its programs have different tensors for {fqn}."
                )
    places = {place for method in document.methods for place in method.programs}
    names = {method.name for method in document.methods}
    if places != {*range(len(document.programs))} or len(names) < len(document.methods):
        raise ArtifactError(f"{archive.path} is damaged: its methods make no sense.")
    programs = [_Reader(doc, objects).program() for doc in document.programs]
    try:
        return ProgramSet({m.name: [programs[i] for i in m.programs] for m in document.methods})
    except InvalidInput as e:
        raise ArtifactError(
            f"{archive.path} does not hold programs that can be used here: {e.what}", why=e.why
        ) from None


class _Objects:
    """The tensors of a file, each made once."""

    def __init__(
        self, archive: ArchiveReader, document: schema.ProgramDoc | schema.ProgramSetDoc
    ) -> None:
        self.archive = archive
        self._descriptions = document.objects
        self._reader = TensorReader(archive, document.stored)
        self._made: dict[int, torch.Tensor] = {}

    def __getitem__(self, number: int) -> torch.Tensor:
        known = self._made.get(number)
        if known is None:
            if not 0 <= number < len(self._descriptions):
                raise ArtifactError(f"there is no tensor {number} in the file.")
            known = self._made[number] = self._reader.make(self._descriptions[number])
        return known


class _Reader:
    """One program being read."""

    def __init__(self, document: schema.ProgramDoc, objects: _Objects) -> None:
        self.archive = objects.archive
        self.document = document
        self.objects = objects
        self.decoder = Decoder(tensor=objects.__getitem__)

    def program(self) -> ExportedProgram:
        """The whole program, checked."""
        doc = self.document
        try:
            env = _environment(doc)
            graph = GraphReader(doc, env)
            graph_module = graph.read()
            ranges = {graph.expression(r.expr): _range(r.lower, r.upper) for r in doc.ranges}
            guards = [
                Guard(_boolean(graph.expression(g.expr)), tuple(g.where), g.kind)
                for g in doc.guards
            ]
            _assume(env, ranges, guards)
            return ExportedProgram(
                graph_module=graph_module,
                graph_signature=self._signature(),
                state_dict=LazyWeights(self._table(doc.state), self.archive.verify),
                constants=LazyWeights(self._table(doc.constants), self.archive.verify),
                range_constraints=ranges,
                guards=guards,
                module_call_graph=[self._module_entry(e) for e in doc.module_call_graph],
                example_inputs=self._example(),
                call_spec=self._call_spec(),
                out_spec=rebuild_spec(doc.out_spec),
                training=doc.training,
                root_class=doc.root_class,
                dim_names=doc.dim_names,
                notes=doc.notes,
                fallbacks=doc.fallbacks,
                verdicts=[_verdict(row) for row in doc.verdicts],
                proposed_spec=doc.proposed_spec,
                assumptions=[
                    Assumption(a.about, a.what, self.decoder.value(a.value), tuple(a.where))
                    for a in doc.assumptions
                ],
                dialect=doc.dialect,
                runtime_asserts=doc.runtime_asserts,
            )
        except (ArtifactError, SpecViolationError) as e:
            raise ArtifactError(
                f"{self.archive.path} does not hold a program that can be used here: {e.what}",
                why=e.why,
                hints=e.hints,
            ) from None

    # -- tensors ------------------------------------------------------------------------------

    def _table(self, rows: list[tuple[str, int]]) -> dict[str, Any]:
        return {fqn: self.objects[index] for fqn, index in rows}

    def _example(self) -> Any:
        example = self.document.example
        if example is None:
            return None
        spec = rebuild_spec(example.spec)
        leaves = [self.decoder.value(leaf) for leaf in example.leaves]
        if spec.num_leaves != len(leaves):
            raise ArtifactError("the example inputs in the file do not fit their structure.")
        return pytree.tree_unflatten(leaves, spec)

    # -- signatures -----------------------------------------------------------------------------

    def _signature(self) -> ExportGraphSignature:
        argument = self.decoder.argument
        try:
            inputs = [
                InputSpec(InputKind[r.kind], argument(r.arg), r.target, r.persistent)
                for r in self.document.inputs
            ]
            outputs = [
                OutputSpec(OutputKind[r.kind], argument(r.arg), r.target, r.attribute)
                for r in self.document.outputs
            ]
        except (KeyError, ValueError) as e:
            raise ArtifactError(f"the signature in the file makes no sense: {e}.") from None
        return ExportGraphSignature(inputs, outputs)

    def _call_spec(self) -> CallSpec:
        doc = self.document.call_spec
        for parameter in doc.parameters:
            if parameter.kind not in KINDS.values() or not parameter.name.isidentifier():
                name, kind = parameter.name[:40], parameter.kind[:40]
                raise ArtifactError(f"the file has a parameter {name!r} of kind {kind!r}.")
        given = []
        for row in doc.given:
            spec = rebuild_spec(row.spec)
            if not len(row.leaf_names) == len(row.leaf_paths) == spec.num_leaves:
                raise ArtifactError(f"the structure of {row.path} in the file makes no sense.")
            given.append(
                GivenArgument(
                    row.parameter, row.key, row.path, spec, tuple(row.leaf_names),
                    tuple(row.leaf_paths),
                )
            )  # fmt: skip
        parameters = [
            CallParameter(p.name, p.kind, p.has_default, self.decoder.value(p.default))
            for p in doc.parameters
        ]
        return CallSpec(tuple(parameters), tuple(given), doc.positional)

    def _module_entry(self, entry: schema.ModuleEntryDoc) -> ModuleCallEntry:
        doc = entry.signature
        if doc is None:
            return ModuleCallEntry(entry.fqn)
        return ModuleCallEntry(
            entry.fqn,
            ModuleCallSignature(
                [self.decoder.argument(a) for a in doc.inputs],
                [self.decoder.argument(a) for a in doc.outputs],
                rebuild_spec(doc.in_spec),
                rebuild_spec(doc.out_spec),
                doc.forward_arg_names,
            ),
        )


# -- sizes ----------------------------------------------------------------------------------------


def _verdict(row: schema.VerdictRow) -> Verdict:
    reasons = tuple(Reason(r.expr, tuple(r.where), r.kind) for r in row.reasons)
    return Verdict(row.place, row.declared, row.outcome, row.result, row.range, reasons)


def _environment(doc: schema.ProgramDoc) -> ShapeEnv:
    env = ShapeEnv()
    env.emits_asserts = doc.runtime_asserts
    for row in doc.symbols:
        if not row.name.isidentifier() or row.sort not in ("int", "float", "bool"):
            raise ArtifactError(
                f"the file has a symbol {row.name[:40]!r} of sort {row.sort[:40]!r}."
            )
        sym = symbol(row.name, row.sort)
        bounds = _range(row.lower, row.upper)
        env.symbols[sym] = SymbolInfo(sym, row.dim_name, row.policy, row.source, row.hint, bounds)
        if row.hint is not None:
            env.hints[sym] = row.hint
        if row.sort == "int":
            env.facts.set_range(sym, bounds)
    return env


def _assume(env: ShapeEnv, ranges: dict[Expr, Range], guards: list[Guard]) -> None:
    """What the program relies on is known of the symbols; nothing can be added afterwards."""
    try:
        for expr, bounds in ranges.items():
            if expr.op == "symbol" and expr.sort == "int":
                env.facts.set_range(expr, bounds)
        for guard in guards:
            env.facts.assume(guard.expr)
    except (Contradiction, ValueError) as e:
        raise ArtifactError(
            f"the conditions on sizes in the file contradict each other: {e}."
        ) from None
    env.freeze()


def _range(lower: int | None, upper: int | None) -> Range:
    try:
        return Range(-math.inf if lower is None else lower, math.inf if upper is None else upper)
    except ValueError as e:
        raise ArtifactError(f"the file has an empty range: {e}.") from None


def _boolean(expr: Expr) -> Expr:
    if expr.sort != "bool":
        raise ArtifactError(f"a guard in the file is no condition: {expr}.")
    return expr
