"""What is in the JSON members of a file: typed, versioned, checked when read.

Version log (major.minor; a reader takes every minor of its major):

- 1.0: first version.
- 1.1: verdicts on the sizes of the inputs; symbols may be floats; what forward asked of its inputs
  and of torch's modes.
- 1.2: subgraphs of higher-order operators: rows of kind ``g`` and the table ``graphs``; the dialect
  of the graph; outputs that are copied back into parameters.
- 1.3: several programs of one module in a file: the member ``programs.json`` in place of
  ``program.json``; operators as arguments of operators.
- 1.4: outputs that are set as attributes of inputs; programs without run-time asserts.

A newer minor may add fields: objects with unknown keys and rows with more columns than known are
read, the surplus is ignored. Small things that occur often are rows (``array_like``). Sizes are
numbers, or text in the grammar of :func:`stillframe.symbolic.parse`. Strings that repeat
(targets, stack traces) are indices into one table.
"""

from __future__ import annotations

from typing import Any

import msgspec

from stillframe.export.containers import StructureNode

FORMAT = "stillframe"
MAJOR, MINOR = 1, 4

PROGRAM, PROGRAMS, WEIGHTS, CONSTANTS, MANIFEST = (
    "program.json", "programs.json", "weights.safetensors", "constants.safetensors",
    "manifest.json",
)  # fmt: skip
MEMBERS = ((PROGRAM, WEIGHTS, CONSTANTS), (PROGRAMS, WEIGHTS, CONSTANTS))

Size = int | str


class Row(msgspec.Struct, array_like=True, frozen=True, tag_field="kind"):
    """A record written as a JSON list."""


# -- values in a graph ----------------------------------------------------------------------------


class NodeRef(Row, tag="node", frozen=True):
    """The result of an earlier node, by its position in the graph."""

    index: int


class ListValue(Row, tag="list", frozen=True):
    items: list[Value]


class TupleValue(Row, tag="tuple", frozen=True):
    items: list[Value]


class DictValue(Row, tag="dict", frozen=True):
    items: list[tuple[Value, Value]]


class SliceValue(Row, tag="slice", frozen=True):
    start: Value
    stop: Value
    step: Value


class NumberValue(Row, tag="number", frozen=True):
    """A number that JSON has no text for: ``inf``, ``nan``, ``1+2j``, a very long integer."""

    type: str
    text: str


class TorchValue(Row, tag="torch", frozen=True):
    """A dtype, device, layout or memory format, by name."""

    type: str
    name: str


class TensorValue(Row, tag="tensor", frozen=True):
    """One of the file's tensors (among example inputs)."""

    object: int


class OperatorValue(Row, tag="operator", frozen=True):
    """An operator as an argument, by name."""

    name: str


class OpaqueValue(Row, tag="opaque", frozen=True):
    """A default of forward that a file cannot hold."""


class SymbolValue(Row, tag="sym", frozen=True):
    """A symbolic number as metadata."""

    text: str


class FakeValue(Row, tag="fake", frozen=True):
    """A tensor as metadata: what it is, and which piece of memory it is in."""

    dtype: str
    device: str
    sizes: list[Size]
    strides: list[Size]
    offset: Size
    storage: int
    requires_grad: bool = False
    is_parameter: bool = False


Value = (
    None
    | bool
    | int
    | float
    | str
    | NodeRef
    | ListValue
    | TupleValue
    | DictValue
    | SliceValue
    | NumberValue
    | TorchValue
    | TensorValue
    | OperatorValue
    | OpaqueValue
    | SymbolValue
    | FakeValue
)


class NodeRow(msgspec.Struct, array_like=True, frozen=True):
    """One node. ``op`` is the first letter of fx's word; numbers are places in tables, or -1.

    A row ``g`` reads a subgraph: ``target`` is the name of the attribute, and its only argument the
    place of the subgraph in ``graphs``, which holds subgraphs before those that read them.
    """

    op: str
    name: str
    target: int
    args: list[Value]
    kwargs: dict[str, Value]
    val: Value = None
    trace: int = -1
    module_stack: int = -1
    torch_fn: tuple[int, int] | None = None
    unbacked: list[tuple[str, list[int | str]]] = []


# -- the rest of a program ------------------------------------------------------------------------


class Argument(Row, tag="arg", frozen=True):
    """An argument spec: its class and name, and what else the class has."""

    type: str
    name: str
    value: Value = None
    class_fqn: str = ""


class InputRow(msgspec.Struct, array_like=True, frozen=True):
    kind: str
    arg: Argument
    target: str | None = None
    persistent: bool | None = None


class OutputRow(msgspec.Struct, array_like=True, frozen=True):
    kind: str
    arg: Argument
    target: str | None = None
    attribute: str | None = None


class SymbolRow(msgspec.Struct, frozen=True):
    """A symbol of the shape environment; absent bounds are infinite."""

    name: str
    sort: str
    dim_name: str
    policy: str
    source: str = ""
    hint: int | float | None = None
    lower: int | None = None
    upper: int | None = None


class RangeRow(msgspec.Struct, frozen=True):
    expr: str
    lower: int | None = None
    upper: int | None = None


class GuardRow(msgspec.Struct, frozen=True):
    expr: str
    where: list[str] = []
    kind: str = "backed"


class AssumptionRow(msgspec.Struct, frozen=True):
    """What forward asked besides sizes and dtypes, and the answer."""

    about: str
    what: str
    value: Value = None
    where: list[str] = []


class VerdictRow(msgspec.Struct, frozen=True):
    """What became of one size of the inputs; ``reasons`` in the user's names of the dims."""

    place: str
    declared: str
    outcome: str
    result: str
    range: str
    reasons: list[GuardRow] = []


class ParameterRow(msgspec.Struct, frozen=True):
    """A parameter of forward."""

    name: str
    kind: str
    has_default: bool = False
    default: Value = None


class GivenRow(msgspec.Struct, frozen=True):
    """An argument that the export was given."""

    parameter: str
    key: int | str | None
    path: str
    spec: StructureNode
    leaf_names: list[str]
    leaf_paths: list[str]


class CallSpecDoc(msgspec.Struct, frozen=True):
    parameters: list[ParameterRow]
    given: list[GivenRow]
    positional: int


class ModuleCallDoc(msgspec.Struct, frozen=True):
    inputs: list[Argument]
    outputs: list[Argument]
    in_spec: StructureNode
    out_spec: StructureNode
    forward_arg_names: list[str] | None = None


class ModuleEntryDoc(msgspec.Struct, frozen=True):
    fqn: str
    signature: ModuleCallDoc | None = None


class StoredTensor(msgspec.Struct, array_like=True, frozen=True):
    """Bytes in a member and how to see them as a tensor.

    ``key`` is its name in the safetensors member; empty for a tensor without elements.
    """

    member: str
    key: str
    dtype: str
    sizes: list[int]
    strides: list[int]
    device: str = "cpu"


class TensorObject(msgspec.Struct, array_like=True, frozen=True):
    """A tensor as an object: names that share one are tied."""

    stored: int
    requires_grad: bool = False
    is_parameter: bool = False


class ExampleDoc(msgspec.Struct, frozen=True):
    spec: StructureNode
    leaves: list[Value]


class ProgramDoc(msgspec.Struct, frozen=True):
    """All of ``program.json``."""

    producer: dict[str, str]
    root_class: str
    training: bool
    strings: list[str]
    module_stacks: list[list[tuple[str, str, str]]]
    storages: list[int]
    nodes: list[NodeRow]
    inputs: list[InputRow]
    outputs: list[OutputRow]
    symbols: list[SymbolRow]
    ranges: list[RangeRow]
    guards: list[GuardRow]
    call_spec: CallSpecDoc
    out_spec: StructureNode
    module_call_graph: list[ModuleEntryDoc]
    stored: list[StoredTensor]
    objects: list[TensorObject]
    state: list[tuple[str, int]]
    constants: list[tuple[str, int]]
    example: ExampleDoc | None = None
    dim_names: dict[str, str] = {}
    notes: list[str] = []
    fallbacks: dict[str, int] = {}
    verdicts: list[VerdictRow] = []
    assumptions: list[AssumptionRow] = []
    proposed_spec: str = ""
    graphs: list[list[NodeRow]] = []
    dialect: str = "training"
    runtime_asserts: bool = True


class MethodDoc(msgspec.Struct, frozen=True):
    """A method of a module, and its programs by their place in ``programs``, in order."""

    name: str
    programs: list[int]


class ProgramSetDoc(msgspec.Struct, frozen=True):
    """All of ``programs.json``. The programs' tensors are in one table, here."""

    methods: list[MethodDoc]
    programs: list[ProgramDoc]
    stored: list[StoredTensor]
    objects: list[TensorObject]


class MemberDoc(msgspec.Struct, frozen=True):
    """A member's size and the SHA-256 of each of its chunks; ``header`` of its first bytes."""

    name: str
    size: int
    digests: list[str]
    header_size: int = 0
    header: str = ""


class ManifestDoc(msgspec.Struct, frozen=True):
    """All of ``manifest.json``. The version stands first, so that any reader understands it."""

    format: str
    major: int
    minor: int
    chunk: int
    members: list[MemberDoc]


class SafetensorsEntry(msgspec.Struct, frozen=True):
    """An entry in the header of a safetensors member."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


def encode(doc: Any) -> bytes:
    """``doc`` as JSON."""
    return msgspec.json.encode(doc)
