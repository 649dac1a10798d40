"""What each placeholder and each output of a program's graph is.

The kinds, classes and field names are those that PyTorch users know from ``torch.export``. A
signature is plain data about names: it holds no tensors and no graph nodes.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from torch.utils import _pytree as pytree


class InputKind(enum.Enum):
    """What a placeholder stands for."""

    USER_INPUT = enum.auto()
    PARAMETER = enum.auto()
    BUFFER = enum.auto()
    CONSTANT_TENSOR = enum.auto()
    CUSTOM_OBJ = enum.auto()
    TOKEN = enum.auto()


class OutputKind(enum.Enum):
    """What a value that the graph returns is for."""

    USER_OUTPUT = enum.auto()
    LOSS_OUTPUT = enum.auto()
    BUFFER_MUTATION = enum.auto()
    USER_INPUT_MUTATION = enum.auto()
    PARAMETER_MUTATION = enum.auto()
    GRADIENT_TO_PARAMETER = enum.auto()
    GRADIENT_TO_USER_INPUT = enum.auto()
    TOKEN = enum.auto()
    USER_INPUT_ATTRIBUTE = enum.auto()


# -- arguments ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TensorArgument:
    """A tensor; ``name`` is its graph node."""

    name: str


@dataclass(frozen=True)
class SymIntArgument:
    """An integer that varies from call to call; ``name`` is its graph node."""

    name: str


@dataclass(frozen=True)
class SymFloatArgument:
    """A float that varies from call to call; ``name`` is its graph node."""

    name: str


@dataclass(frozen=True)
class SymBoolArgument:
    """A boolean that varies from call to call; ``name`` is its graph node."""

    name: str


@dataclass(frozen=True)
class ConstantArgument:
    """A value fixed at capture. ``name`` is its placeholder, empty for outputs without a node."""

    name: str
    value: int | float | bool | str | None


@dataclass(frozen=True)
class TokenArgument:
    """An ordering token of effectful operators."""

    name: str


@dataclass(frozen=True)
class CustomObjArgument:
    """A script object: its graph node, the class, and a stand-in for the capture."""

    name: str
    class_fqn: str
    fake_val: Any = None


ArgumentSpec = (
    TensorArgument
    | SymIntArgument
    | SymFloatArgument
    | SymBoolArgument
    | ConstantArgument
    | TokenArgument
    | CustomObjArgument
)


@dataclass(frozen=True)
class InputSpec:
    """One placeholder.

    Attributes:
        kind: what it stands for.
        arg: its name and type.
        target: FQN of the state it was lifted from; None for user inputs.
        persistent: for buffers, whether they are part of the ``state_dict``; else None.
    """

    kind: InputKind
    arg: ArgumentSpec
    target: str | None
    persistent: bool | None = None

    def __post_init__(self) -> None:
        if self.kind is InputKind.BUFFER and self.persistent is None:
            raise ValueError(f"the buffer {self.target} must be persistent or not, got None")

    def __str__(self) -> str:
        text = f"{_argument_text(self.arg)}: {self.kind.name}"
        if self.target is not None:
            text += f" {self.target}"
        return text + " (not persistent)" if self.persistent is False else text


@dataclass(frozen=True)
class OutputSpec:
    """One output by position.

    Attributes:
        kind: what it is for.
        arg: its name and type.
        target: what a mutation, an attribute or a gradient belongs to, else None.
        attribute: the name under which the input ``target`` gets it, else None.
    """

    kind: OutputKind
    arg: ArgumentSpec
    target: str | None
    attribute: str | None = None

    def __post_init__(self) -> None:
        if (self.kind is OutputKind.USER_INPUT_ATTRIBUTE) != (self.attribute is not None):
            raise ValueError(f"an output of kind {self.kind.name}, attribute {self.attribute!r}")

    def __str__(self) -> str:
        text = f"{_argument_text(self.arg)}: {self.kind.name}"
        attribute = "" if self.attribute is None else f".{self.attribute}"
        return text if self.target is None else f"{text} {self.target}{attribute}"


#: Outputs that belong to an input, by the name of its placeholder.
_OF_INPUTS = (OutputKind.USER_INPUT_MUTATION, OutputKind.USER_INPUT_ATTRIBUTE)


def _argument_text(arg: ArgumentSpec) -> str:
    if isinstance(arg, ConstantArgument):
        return f"{arg.name} = {arg.value!r}" if arg.name else repr(arg.value)
    return arg.name


# -- the signature --------------------------------------------------------------------------------


@dataclass(frozen=True)
class ExportBackwardSignature:
    """Outputs of a joint graph: gradient name -> parameter FQN or user input, and the loss."""

    gradients_to_parameters: dict[str, str]
    gradients_to_user_inputs: dict[str, str]
    loss_output: str


@dataclass
class ExportGraphSignature:
    """All placeholders in order, all outputs in order, and the views people ask for.

    Names in the views are names of graph nodes; FQNs are the module's dotted paths.
    """

    input_specs: list[InputSpec] = field(default_factory=list)
    output_specs: list[OutputSpec] = field(default_factory=list)

    # -- inputs -------------------------------------------------------------------------------

    @property
    def parameters(self) -> tuple[str, ...]:
        """FQNs of the lifted parameters."""
        return tuple(self._targets(InputKind.PARAMETER))

    @property
    def buffers(self) -> tuple[str, ...]:
        """FQNs of the lifted buffers."""
        return tuple(self._targets(InputKind.BUFFER))

    @property
    def non_persistent_buffers(self) -> tuple[str, ...]:
        """FQNs of the lifted buffers that are not in the ``state_dict``."""
        return tuple(
            s.target
            for s in self.input_specs
            if s.kind is InputKind.BUFFER and s.persistent is False and s.target is not None
        )

    @property
    def lifted_tensor_constants(self) -> tuple[str, ...]:
        """FQNs of the tensor constants."""
        return tuple(self._targets(InputKind.CONSTANT_TENSOR))

    @property
    def lifted_custom_objs(self) -> tuple[str, ...]:
        """FQNs of the script objects."""
        return tuple(self._targets(InputKind.CUSTOM_OBJ))

    @property
    def user_inputs(self) -> tuple[Any, ...]:
        """The user's inputs in order: placeholder names, and the values of constants."""
        return tuple(
            s.arg.value if isinstance(s.arg, ConstantArgument) else s.arg.name
            for s in self.input_specs
            if s.kind is InputKind.USER_INPUT
        )

    @property
    def inputs_to_parameters(self) -> Mapping[str, str]:
        """Placeholder name -> parameter FQN."""
        return self._placeholders(InputKind.PARAMETER)

    @property
    def inputs_to_buffers(self) -> Mapping[str, str]:
        """Placeholder name -> buffer FQN."""
        return self._placeholders(InputKind.BUFFER)

    @property
    def inputs_to_lifted_tensor_constants(self) -> Mapping[str, str]:
        """Placeholder name -> constant FQN."""
        return self._placeholders(InputKind.CONSTANT_TENSOR)

    @property
    def inputs_to_lifted_custom_objs(self) -> Mapping[str, str]:
        """Placeholder name -> script object FQN."""
        return self._placeholders(InputKind.CUSTOM_OBJ)

    @property
    def input_tokens(self) -> tuple[str, ...]:
        """Placeholder names of the tokens."""
        return tuple(s.arg.name for s in self.input_specs if isinstance(s.arg, TokenArgument))

    # -- outputs ------------------------------------------------------------------------------

    @property
    def user_outputs(self) -> tuple[Any, ...]:
        """What the user gets, in order: node names, and the values of constants."""
        kinds = (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT)
        return tuple(
            s.arg.value if isinstance(s.arg, ConstantArgument) else s.arg.name
            for s in self.output_specs
            if s.kind in kinds
        )

    @property
    def buffers_to_mutate(self) -> Mapping[str, str]:
        """Output name -> FQN of the buffer it is copied into."""
        return self._results(OutputKind.BUFFER_MUTATION)

    @property
    def parameters_to_mutate(self) -> Mapping[str, str]:
        """Output name -> FQN of the parameter it is copied into."""
        return self._results(OutputKind.PARAMETER_MUTATION)

    @property
    def user_inputs_to_mutate(self) -> Mapping[str, str]:
        """Output name -> name of the user input it is copied into."""
        return self._results(OutputKind.USER_INPUT_MUTATION)

    @property
    def output_tokens(self) -> tuple[str, ...]:
        """Output names of the tokens."""
        return tuple(s.arg.name for s in self.output_specs if isinstance(s.arg, TokenArgument))

    @property
    def assertion_dep_token(self) -> Mapping[int, str] | None:
        """Kept for readers of other programs: asserts here are ordered by the graph, so None."""
        return None

    @property
    def backward_signature(self) -> ExportBackwardSignature | None:
        """For joint graphs, which output is which gradient; None if there is no loss."""
        losses = [s.arg.name for s in self.output_specs if s.kind is OutputKind.LOSS_OUTPUT]
        if not losses:
            return None
        return ExportBackwardSignature(
            dict(self._results(OutputKind.GRADIENT_TO_PARAMETER)),
            dict(self._results(OutputKind.GRADIENT_TO_USER_INPUT)),
            losses[0],
        )

    # -- changing and printing ------------------------------------------------------------------

    def replace_all_uses(self, old: str, new: str) -> None:
        """The graph node ``old`` is now called ``new``: rename it wherever it appears.

        Mutations and attributes of user inputs name their input, so their targets follow too.
        """
        self.input_specs[:] = [_renamed(s, old, new) for s in self.input_specs]
        self.output_specs[:] = [
            replace(renamed, target=new) if s.kind in _OF_INPUTS and s.target == old else renamed
            for s in self.output_specs
            for renamed in (_renamed(s, old, new),)
        ]

    def __str__(self) -> str:
        return "\n".join(
            [
                "inputs:",
                *(f"  {spec}" for spec in self.input_specs),
                "outputs:",
                *(f"  {spec}" for spec in self.output_specs),
            ]
        )

    # -- helpers ------------------------------------------------------------------------------

    def _targets(self, kind: InputKind) -> Iterator[str]:
        return (s.target for s in self.input_specs if s.kind is kind and s.target is not None)

    def _placeholders(self, kind: InputKind) -> dict[str, str]:
        return _by_name(s for s in self.input_specs if s.kind is kind)

    def _results(self, kind: OutputKind) -> dict[str, str]:
        return _by_name(s for s in self.output_specs if s.kind is kind)


def _by_name(specs: Iterable[InputSpec | OutputSpec]) -> dict[str, str]:
    return {s.arg.name: s.target for s in specs if s.target is not None}


def _renamed(spec: Any, old: str, new: str) -> Any:
    return replace(spec, arg=replace(spec.arg, name=new)) if spec.arg.name == old else spec


class JointResult(NamedTuple):
    """What the module of a joint graph returns.

    Attributes:
        result: what forward returns.
        parameter_gradients: parameter FQN -> gradient of the loss.
        input_gradients: user input -> gradient of the loss.
    """

    result: Any
    parameter_gradients: dict[str, Any]
    input_gradients: dict[str, Any]


# -- calls of submodules --------------------------------------------------------------------------


@dataclass
class ModuleCallSignature:
    """How a module was called: flat inputs and outputs, and their structure.

    Attributes:
        inputs, outputs: the flat leaves.
        in_spec: structure of ``(args, kwargs)``.
        out_spec: structure of the result.
        forward_arg_names: names of forward's parameters, if known.
    """

    inputs: list[ArgumentSpec]
    outputs: list[ArgumentSpec]
    in_spec: pytree.TreeSpec
    out_spec: pytree.TreeSpec
    forward_arg_names: list[str] | None = None

    def replace_all_uses(self, old: str, new: str) -> None:
        """The graph node ``old`` is now called ``new``."""
        for specs in (self.inputs, self.outputs):
            specs[:] = [replace(a, name=new) if a.name == old else a for a in specs]


@dataclass
class ModuleCallEntry:
    """A submodule by FQN (the root's is empty), with its call signature where it was kept."""

    fqn: str
    signature: ModuleCallSignature | None = None
