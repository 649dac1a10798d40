"""Tensors from and to safetensors files, by argument name or by path."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch.utils import _pytree as pytree

from stillframe.errors import InvalidInput
from stillframe.export.signature import ConstantArgument, InputKind

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file, by name.

    Raises:
        InvalidInput: no such file, or another kind of file.
    """
    if not path.is_file():
        raise InvalidInput(f"There is no file {path}.")
    try:
        return safetensors.torch.load_file(path)
    except safetensors.SafetensorError as e:
        raise InvalidInput(f"{path} is not a safetensors file: {e}") from None


def program_inputs(
    program: ExportedProgram, tensors: Mapping[str, torch.Tensor]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """``(args, kwargs)`` for a call of the program. Inputs that are constants fill themselves in.

    Args:
        program: what will be called.
        tensors: by name of the input in the graph (``past_0``) or by path (``past[0]``).

    Raises:
        InvalidInput: an input without a tensor, or a tensor without an input.
    """
    spec = program.call_spec
    user = [s for s in program.graph_signature.input_specs if s.kind is InputKind.USER_INPUT]
    missing: list[str] = []
    used: set[str] = set()
    leaves: list[Any] = []
    for path, given in zip(spec.leaf_paths, user, strict=True):
        key = path if path in tensors else given.arg.name
        if key in tensors:
            used.add(key)
            leaves.append(tensors[key])
        elif isinstance(given.arg, ConstantArgument):
            leaves.append(given.arg.value)
        else:
            missing.append(path)
    unknown = [name for name in tensors if name not in used]
    if missing or unknown:
        raise InvalidInput(
            "The inputs file does not fit the program.",
            why="; ".join(
                f"{what}: {', '.join(names)}"
                for what, names in (("missing", missing), ("not an input", unknown))
                if names
            ),
            hints=[f"the program takes: {', '.join(spec.leaf_paths)}"],
        )
    return pytree.tree_unflatten(leaves, spec.in_spec)  # type: ignore[no-any-return]


def output_tensors(result: Any) -> dict[str, torch.Tensor]:
    """The tensors of a result by path: ``output``, ``output[0]``, or a mapping's own keys."""
    found: dict[str, torch.Tensor] = {}
    for path, leaf in pytree.tree_flatten_with_path(result)[0]:
        if not isinstance(leaf, torch.Tensor):
            continue
        if path and isinstance(path[0], pytree.MappingKey):
            name = str(path[0].key) + pytree.keystr(path[1:])
        else:
            name = "output" + pytree.keystr(path)
        # a copy each: the format has no tensors that share memory
        found[name] = leaf.detach().clone(memory_format=torch.contiguous_format)
    return found


def write_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file.

    Raises:
        InvalidInput: the folder does not exist or cannot be written.
    """
    try:
        safetensors.torch.save_file(tensors, path)
    except (OSError, safetensors.SafetensorError) as e:
        raise InvalidInput(f"Cannot write {path}: {e}") from None
