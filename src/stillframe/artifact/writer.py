"""``save``: a program, or several of one module, to a ``.still`` file.

The file is written beside its place and moved there when it is complete, so that a failure leaves
what was there before, and nothing else.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch.utils import _pytree as pytree

from stillframe.artifact import schema
from stillframe.artifact.archive import ArchiveWriter
from stillframe.artifact.direct_file import DirectFile
from stillframe.artifact.graph_rows import GraphWriter
from stillframe.artifact.tensors import TensorTable
from stillframe.artifact.values import Encoder
from stillframe.errors import ArtifactError, InvalidInput
from stillframe.export.call_spec import CallSpec
from stillframe.export.containers import describe_spec
from stillframe.export.program import ExportedProgram
from stillframe.export.several import ProgramSet
from stillframe.export.sharing import tensors_of, written_state
from stillframe.export.signature import ModuleCallEntry
from stillframe.export.verdicts import Verdict
from stillframe.shapes.env import ShapeEnv
from stillframe.symbolic import Range, to_python


def save(program: ExportedProgram | ProgramSet, path: str | os.PathLike[str]) -> None:
    """Write ``program`` to ``path``. An existing file is replaced.

    The file holds the graph, the state, the signature and the example inputs. It holds no code.
    Of a :class:`~stillframe.ProgramSet` it holds all graphs, and each tensor once.

    Raises:
        InvalidInput: ``program`` is no exported program, or ``path`` cannot be a file.
        ArtifactError: the program holds something that a file cannot; the message names it. What
            was at ``path`` before is untouched.
    """
    if not isinstance(program, (ExportedProgram, ProgramSet)):
        raise InvalidInput(
            f"save takes an ExportedProgram, got {type(program).__name__}.",
            hints=["program = stillframe.export(module, args)"],
        )
    target = _checked_path(path)
    tensors = TensorTable()
    if isinstance(program, ProgramSet):
        member, document = schema.PROGRAMS, schema.encode(_set_document(program, tensors))
    else:
        member, document = schema.PROGRAM, schema.encode(_document(program, tensors))
    with _replacing(target) as file:
        archive = ArchiveWriter(file)
        try:
            archive.add(member, [document], len(document))
            tensors.write(archive, schema.CONSTANTS)
            tensors.write(archive, schema.WEIGHTS)
            archive.finish()
        finally:
            archive.close()


def _checked_path(path: Any) -> Path:
    if not isinstance(path, (str, os.PathLike)):
        raise InvalidInput(f"path must be a path, got {type(path).__name__}.")
    target = Path(path)
    if target.is_dir() or not target.name:
        raise InvalidInput(f"{target} is a directory; save writes one file.")
    if not target.parent.is_dir():
        raise InvalidInput(
            f"The directory {target.parent} does not exist.", hints=["create it before saving"]
        )
    return target


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[DirectFile]:
    """A new file that takes the place of ``target`` at the end, if nothing was raised."""
    try:
        handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".tmp", dir=target.parent)
    except OSError as e:
        raise InvalidInput(f"{target} cannot be written: {e.strerror}.") from None
    try:
        os.close(handle)
        file = DirectFile(name)
        try:
            yield file
            file.finish()
        finally:
            file.close()
        os.chmod(name, 0o666 & ~_umask())
        os.replace(name, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


# -- the document ---------------------------------------------------------------------------------


def _set_document(programs: ProgramSet, tensors: TensorTable) -> schema.ProgramSetDoc:
    unique = list({id(program): program for program in programs.programs}.values())
    places = {id(program): i for i, program in enumerate(unique)}
    methods = [
        schema.MethodDoc(name, [places[id(program)] for program in graphs])
        for name, graphs in programs.methods.items()
    ]
    documents = [
        msgspec.structs.replace(_document(program, tensors), stored=[], objects=[])
        for program in unique
    ]
    _refuse_shared_writes(unique)
    return schema.ProgramSetDoc(methods, documents, tensors.stored, tensors.objects)


def _document(program: ExportedProgram, tensors: TensorTable) -> schema.ProgramDoc:
    graph = GraphWriter(program.graph_module)
    rows = graph.write()
    encoder = Encoder()
    constants = _constants(program)
    _refuse_shared_writes([program])
    return schema.ProgramDoc(
        producer=_producer(),
        root_class=program.root_class,
        training=bool(program.training),
        strings=graph.strings.items,
        module_stacks=graph.module_stacks,
        storages=graph.storages,
        nodes=rows,
        inputs=[
            schema.InputRow(s.kind.name, encoder.argument(s.arg), s.target, s.persistent)
            for s in program.graph_signature.input_specs
        ],
        outputs=[
            schema.OutputRow(s.kind.name, encoder.argument(s.arg), s.target, s.attribute)
            for s in program.graph_signature.output_specs
        ],
        symbols=_symbols(graph.env),
        ranges=[
            schema.RangeRow(to_python(e), *_bounds(r)) for e, r in program.range_constraints.items()
        ],
        guards=[schema.GuardRow(to_python(g.expr), list(g.where), g.kind) for g in program.guards],
        call_spec=_call_spec(program.call_spec, encoder),
        out_spec=describe_spec(program.out_spec, "the result"),
        module_call_graph=[_module_entry(e, encoder) for e in program.module_call_graph],
        state=[
            (fqn, tensors.add(schema.WEIGHTS, fqn, value))
            for fqn, value in program.state_dict.items()
        ],
        constants=[
            (fqn, tensors.add(schema.CONSTANTS, fqn, value)) for fqn, value in constants.items()
        ],
        example=_example(program, tensors, encoder),
        dim_names=dict(program.dim_names),
        notes=list(program.notes),
        fallbacks={str(k): int(v) for k, v in program.fallbacks.items()},
        verdicts=[_verdict(v) for v in program.verdicts],
        proposed_spec=program.proposed_spec,
        graphs=graph.graphs,
        assumptions=[
            schema.AssumptionRow(a.about, a.what, encoder.value(a.value, a.what), list(a.where))
            for a in program.assumptions
        ],
        dialect=program.dialect,
        runtime_asserts=program.runtime_asserts,
        stored=tensors.stored,
        objects=tensors.objects,
    )


def _producer() -> dict[str, str]:
    import stillframe

    return {"stillframe": stillframe.__version__, "torch": str(torch.__version__)}


def _constants(program: ExportedProgram) -> Mapping[str, Any]:
    for fqn, value in program.constants.items():
        if not isinstance(value, torch.Tensor):
            raise ArtifactError(
                f"The constant {fqn} is a {type(value).__name__}, which a file cannot hold."
            )
    return program.constants


def _refuse_shared_writes(programs: Sequence[ExportedProgram]) -> None:
    """Different tensors over one memory, of which a program writes one, cannot be kept apart.

    Tensors that cover exactly the same memory are written once and stay shared.
    """
    written: set[str] = set()
    tables: dict[str, Any] = {}
    for program in programs:
        written |= written_state(program)
        tables |= tensors_of(program)
    by_storage: dict[int, list[str]] = {}
    for fqn, value in tables.items():
        if value.layout is torch.strided and value.numel():
            by_storage.setdefault(value.untyped_storage().data_ptr(), []).append(fqn)
    for names in by_storage.values():
        layouts = {(tables[n].data_ptr(), tables[n].shape, tables[n].stride()) for n in names}
        if len(layouts) > 1 and written.intersection(names):
            raise ArtifactError(
                f"{', '.join(names)} are views of one memory, and the program writes it.",
                why="a file keeps each on its own, and it would no longer see the others' changes",
                hints=[
                    "make them separate buffers, or register only one and take views in forward"
                ],
            )


def _verdict(verdict: Verdict) -> schema.VerdictRow:
    reasons = [schema.GuardRow(r.condition, list(r.where), r.kind) for r in verdict.reasons]
    return schema.VerdictRow(
        verdict.place, verdict.declared, verdict.outcome, verdict.result, verdict.range, reasons
    )


def _symbols(env: ShapeEnv | None) -> list[schema.SymbolRow]:
    if env is None:
        return []
    return [
        schema.SymbolRow(
            str(sym), sym.sort, info.dim_name, info.policy, info.source, info.example,
            *_bounds(info.declared),
        )
        for sym, info in env.symbols.items()
    ]  # fmt: skip


def _bounds(bounds: Range) -> tuple[int | None, int | None]:
    def end(value: float) -> int | None:
        return None if value in (float("inf"), float("-inf")) else int(value)

    return end(bounds.lower), end(bounds.upper)


def _call_spec(spec: CallSpec, encoder: Encoder) -> schema.CallSpecDoc:
    return schema.CallSpecDoc(
        [
            schema.ParameterRow(p.name, p.kind, p.has_default, encoder.default(p.default))
            for p in spec.parameters
        ],
        [
            schema.GivenRow(
                g.parameter, g.key, g.path, describe_spec(g.spec, g.path), list(g.leaf_names),
                list(g.leaf_paths),
            )
            for g in spec.given
        ],
        spec.positional,
    )  # fmt: skip


def _module_entry(entry: ModuleCallEntry, encoder: Encoder) -> schema.ModuleEntryDoc:
    signature = entry.signature
    if signature is None:
        return schema.ModuleEntryDoc(entry.fqn)
    where = entry.fqn or "the program"
    return schema.ModuleEntryDoc(
        entry.fqn,
        schema.ModuleCallDoc(
            [encoder.argument(a) for a in signature.inputs],
            [encoder.argument(a) for a in signature.outputs],
            describe_spec(signature.in_spec, f"the inputs of {where}"),
            describe_spec(signature.out_spec, f"the result of {where}"),
            signature.forward_arg_names,
        ),
    )


def _example(
    program: ExportedProgram, tensors: TensorTable, encoder: Encoder
) -> schema.ExampleDoc | None:
    if program.example_inputs is None:
        return None
    leaves, spec = pytree.tree_flatten(program.example_inputs)
    rows: list[Any] = []
    for i, leaf in enumerate(leaves):
        if isinstance(leaf, torch.Tensor):
            rows.append(schema.TensorValue(tensors.add(schema.CONSTANTS, f"example.{i}", leaf)))
        else:
            rows.append(encoder.value(leaf, f"example input {i}"))
    return schema.ExampleDoc(describe_spec(spec, "the example inputs"), rows)
