"""The commands. Each reads its arguments, calls the library, and prints one report."""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
import typer
from rich.console import Console

import stillframe
from stillframe.artifact import load, save
from stillframe.cli import factory, tensors
from stillframe.cli.dynamic import dynamic_spec, parse_dynamic
from stillframe.cli.guarded import ExitCode, Traceback, guarded
from stillframe.errors import ArtifactError, CallError, InvalidInput, StillframeError
from stillframe.export.several import ProgramSet
from stillframe.export.surgery.comparison import compare
from stillframe.interop.torchscript import convert_module
from stillframe.report.difference import difference_report
from stillframe.report.facts import program_facts
from stillframe.report.tables import methods_table, program_report, summary_table

if TYPE_CHECKING:
    from stillframe.export.program import ExportedProgram

app = typer.Typer(
    name="stillframe",
    help="Capture PyTorch modules as programs, and look at, run and verify those programs.",
    epilog="Exit codes: 0 ok, 1 verification failed or programs differ, 2 your input or your "
    "program, 70 a defect of stillframe.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Target = Annotated[
    str,
    typer.Argument(
        metavar="PKG.MODULE:FACTORY",
        help="A function without arguments that returns a module, or (module, args), or "
        "(module, args, kwargs), or (module, kwargs). Found from the current folder too.",
    ),
]
ProgramFile = Annotated[Path, typer.Argument(metavar="PROGRAM", help="A .still file.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"stillframe {stillframe.__version__}, torch {torch.__version__}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_version, is_eager=True, help="Print the versions and stop."
        ),
    ] = False,
) -> None:
    """Capture PyTorch modules as programs, and look at, run and verify those programs."""


@app.command()
@guarded
def export(
    target: Target,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="PROGRAM", help="The .still file to write.")
    ],
    dynamic: Annotated[
        list[str] | None,
        typer.Option(
            "--dynamic",
            "-d",
            metavar="INPUT=DIM:SIZE[:RANGE],...",
            help="Dims that may vary, for example 'input_ids=0:batch,1:seq:2..512'. SIZE is a name "
            "(the same name is the same size everywhere), derived from one (8*seq, seq+1), or "
            "auto, dynamic, static. RANGE is lo..hi, lo.. or ..hi. May be given more than once. "
            "Just 'auto' leaves all sizes open and prints what the program admits.",
        ),
    ] = None,
    assume: Annotated[
        list[str] | None,
        typer.Option(
            "--assume",
            metavar="RELATION",
            help="What holds for the sizes of every call, for example 'seq % 8 == 0' or "
            "'h == w'. May be given more than once.",
        ),
    ] = None,
    inputs: Annotated[
        Path | None,
        typer.Option(
            "--inputs",
            metavar="SAFETENSORS",
            help="Example inputs by argument name, when the factory returns only a module.",
        ),
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Capture by symbolic execution of the bytecode.")
    ] = False,
    verify: Annotated[
        int,
        typer.Option(
            "--verify",
            min=0,
            metavar="N",
            help="Compare with the module at N other shapes before writing.",
        ),
    ] = 0,
    traceback: Traceback = False,
) -> None:
    """Capture a module and write it as a program.

    For example:

        stillframe export models.text:encoder -d 'input_ids=0:batch,1:seq:2..512' -o encoder.still
    """
    is_open = dynamic == ["auto"]
    dims = parse_dynamic([] if is_open else dynamic or [])
    _check_writable(output)
    module, args, kwargs = _with_inputs(factory.make(target), target, inputs)
    source = _source(module, strict)
    spec = stillframe.auto if is_open else dynamic_spec(source, args, kwargs, dims)
    start = time.perf_counter()
    program = _export(source, args, kwargs, dynamic_shapes=spec, assume=assume or [], strict=strict)
    seconds = time.perf_counter() - start
    verification = None
    if verify:
        verification = str(program.verify(module, samples=verify))
    save(program, output)
    facts = program_facts(program)
    table = summary_table(
        facts,
        export_seconds=seconds,
        verification=verification,
        file_name=str(output),
        file_bytes=output.stat().st_size,
    )
    Console().print(table)
    if program.proposed_spec:
        print(f"\nWhat the program admits, as Python:\n\n{program.proposed_spec}")


@app.command()
@guarded
def inspect(
    program: ProgramFile,
    as_json: Annotated[bool, typer.Option("--json", help="Print the same as JSON.")] = False,
    lines: Annotated[
        int, typer.Option("--lines", min=0, metavar="N", help="Lines of the graph; 0 for all.")
    ] = 20,
    traceback: Traceback = False,
) -> None:
    """Show a program: signature, dims with their ranges, operators, sizes, top of the graph."""
    loaded = _load(program)
    size = program.stat().st_size
    if isinstance(loaded, ProgramSet):
        _inspect_all(loaded, size, as_json, lines or None)
        return
    facts = program_facts(loaded, graph_limit=lines or None)
    if as_json:
        print(json.dumps({**facts.as_json(), "file_bytes": size}, indent=2))
    else:
        Console().print(program_report(facts, file_bytes=size))


@app.command()
@guarded
def explain(
    program: ProgramFile,
    about: Annotated[
        str | None,
        typer.Option("--about", metavar="NAME", help="Only this input, size or dim."),
    ] = None,
    traceback: Traceback = False,
) -> None:
    """Say why each size of a program is as it is: what was declared, and which lines decided."""
    loaded = _load(program)
    text = _explain_all(loaded, about) if isinstance(loaded, ProgramSet) else loaded.explain(about)
    Console().print(str(text), soft_wrap=True, highlight=False, markup=False)


@app.command()
@guarded
def run(
    program: ProgramFile,
    inputs: Annotated[
        Path,
        typer.Option("--inputs", "-i", metavar="SAFETENSORS", help="Tensors by argument name."),
    ],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="SAFETENSORS", help="Where the results go.")
    ],
    method: Annotated[
        str, typer.Option("--method", metavar="NAME", help="Of several methods, the one to call.")
    ] = "forward",
    traceback: Traceback = False,
) -> None:
    """Call a program on tensors of a file and write the results to another."""
    _check_writable(out)
    loaded = _load(program)
    with torch.no_grad():
        result = _call(loaded, method, tensors.read_tensors(inputs))
    results = tensors.output_tensors(result)
    tensors.write_tensors(results, out)
    for name, tensor in results.items():
        print(f"{name}: {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}")


@app.command()
@guarded
def verify(
    program: ProgramFile,
    target: Target,
    samples: Annotated[
        int, typer.Option("--samples", "-n", min=0, metavar="N", help="How many other shapes.")
    ] = 3,
    traceback: Traceback = False,
) -> None:
    """Run a program beside the module it came from, at shapes inside the declared ranges.

    Exit code 1 when they differ.
    """
    loaded = _load(program)
    made = factory.make(target)
    if isinstance(loaded, ProgramSet):
        for title, found in loaded.verify(made.module, samples=samples).items():
            Console().print(f"{title}: {found}", soft_wrap=True, highlight=False)
        return
    if loaded.example_inputs is None and made.args is not None:
        loaded.example_inputs = (made.args, made.kwargs)
    report = loaded.verify(made.module, samples=samples)
    Console().print(str(report), soft_wrap=True, highlight=False)


@app.command()
@guarded
def diff(
    first: Annotated[Path, typer.Argument(metavar="A", help="A .still file.")],
    second: Annotated[Path, typer.Argument(metavar="B", help="Another one.")],
    traceback: Traceback = False,
) -> None:
    """Show what differs between two programs: inputs, dims, outputs, state, operators, graph.

    Exit code 0 when they are the same, 1 when they differ, 2 when one cannot be read.
    """
    console = Console()
    one, other = _titled(_load(first)), _titled(_load(second))
    different = False
    for title in dict.fromkeys([*one, *other]):
        if title not in one or title not in other:
            console.print(
                f"{title or 'a single program'}: only in {first if title in one else second}"
            )
            different = True
            continue
        found = compare(one[title], other[title])
        different = different or bool(found)
        if title:
            console.print(f"{title}:")
        console.print(difference_report(found))
    if different:
        raise typer.Exit(ExitCode.DIFFERENT)


# -- steps ----------------------------------------------------------------------------------------


def _load(path: Path) -> ExportedProgram | ProgramSet:
    if not path.is_file():
        raise ArtifactError(f"There is no file {path}.")
    return load(path)


def _titled(programs: ExportedProgram | ProgramSet) -> dict[str, ExportedProgram]:
    """The programs of a file by their titles; a single one has none."""
    return programs.titles() if isinstance(programs, ProgramSet) else {"": programs}


def _inspect_all(programs: ProgramSet, size: int, as_json: bool, limit: int | None) -> None:
    """Methods and graphs with their reports, one after the other."""
    if as_json:
        methods = {
            name: [program_facts(p, graph_limit=limit).as_json() for p in graphs]
            for name, graphs in programs.methods.items()
        }
        about = {"root_class": programs.root_class, "methods": methods, "file_bytes": size}
        print(json.dumps(about, indent=2))
        return
    console = Console()
    console.print(methods_table(programs, size))
    for title, program in programs.titles().items():
        console.print()
        console.print(program_report(program_facts(program, graph_limit=limit), title=title))


def _explain_all(programs: ProgramSet, about: str | None) -> str:
    """What :meth:`explain` says of each graph that knows the name."""
    texts, errors = [], []
    for title, program in programs.titles().items():
        try:
            texts.append(f"{title}:\n{program.explain(about)}")
        except InvalidInput as error:  # that graph has nothing of the name
            errors.append(error)
    if not texts:
        raise errors[0]
    return "\n\n".join(texts)


def _call(
    loaded: ExportedProgram | ProgramSet, method: str, given: Mapping[str, torch.Tensor]
) -> Any:
    """The result for tensors by name. Of several graphs, the names fit one, or the next."""
    methods = loaded.methods if isinstance(loaded, ProgramSet) else {"forward": (loaded,)}
    if method not in methods:
        raise InvalidInput(f"The program has no method {method!r}.", hints=[", ".join(methods)])
    module = loaded.module()
    errors: list[StillframeError] = []
    for program in methods[method]:
        try:
            args, kwargs = tensors.program_inputs(program, given)
            return (
                module(*args, **kwargs)
                if method == "forward"
                else getattr(module, method)(*args, **kwargs)
            )
        except (InvalidInput, CallError) as error:
            errors.append(error)
    raise errors[-1]


def _check_writable(path: Path) -> None:
    """Before the work, not after it."""
    if not path.resolve().parent.is_dir():
        raise InvalidInput(f"Cannot write {path}: there is no folder {path.parent}.")
    if path.is_dir():
        raise InvalidInput(f"Cannot write {path}: it is a folder.")


def _with_inputs(
    made: factory.Made, target: str, inputs: Path | None
) -> tuple[torch.nn.Module, tuple[Any, ...], dict[str, Any]]:
    """The module with example inputs: the factory's, or those of the file."""
    if inputs is not None:
        return made.module, (), dict(tensors.read_tensors(inputs))
    if made.args is None:
        raise InvalidInput(
            f"{target} returned a module without example inputs.",
            hints=["return (module, args) from it, or give --inputs example.safetensors"],
        )
    return made.module, made.args, made.kwargs


def _source(module: torch.nn.Module, strict: bool) -> torch.nn.Module:
    """What to capture: the Python side of a TorchScript module, else the module itself."""
    if not isinstance(module, torch.jit.ScriptModule):
        return module
    if strict:
        raise InvalidInput("--strict is for Python, and TorchScript has none: leave it out.")
    return convert_module(module)


def _export(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], **options: Any
) -> ExportedProgram:
    """``stillframe.export``; what the module raises by itself too is told as the user's."""
    try:
        return stillframe.export(module, args, kwargs, **options)
    except StillframeError:
        raise
    except Exception as error:
        own = _own_error(module, args, kwargs)
        if own is None:
            raise
        raise factory.user_code_error(
            f"The module raises {type(own).__name__} on the example inputs: {own}", own
        ) from error


def _own_error(
    module: torch.nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Exception | None:
    """What a copy of the module raises when it is simply called."""
    try:
        with torch.no_grad():
            copy.deepcopy(module)(*copy.deepcopy(args), **copy.deepcopy(kwargs))
    except Exception as error:
        return error
    return None
