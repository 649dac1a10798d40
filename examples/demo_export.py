"""First half of the demo: capture a pretrained sentence-embedding model and write it to a file.

    python examples/demo_export.py [minilm.still]

The batch and the number of tokens are dynamic. Before it is written, the program is compared with
the module at three other shapes.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

# Nothing is fetched: all files of the model come with its package.
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from minilm import MAX_TOKENS, build_model, example_inputs
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

import stillframe as sf
from stillframe.report.facts import program_facts
from stillframe.report.tables import summary_table


def main(path: Path) -> None:
    """Build, export, verify, save, and print what came out."""
    console = Console()
    columns = (SpinnerColumn(finished_text="✓"), TextColumn("{task.description}"))
    with Progress(*columns, TimeElapsedColumn(), console=console) as progress:

        def step(text: str) -> None:
            finish()
            progress.add_task(text, total=1)

        def finish() -> None:
            for task in progress.task_ids:
                progress.update(task, completed=1)

        step("building the model from its config and weights")
        model = build_model()
        inputs = example_inputs()

        step("exporting with dynamic batch and tokens")
        batch = sf.Dim("batch", min=1, max=256)
        tokens = sf.Dim("tokens", min=2, max=MAX_TOKENS)
        shapes = {name: {0: batch, 1: tokens} for name in inputs}
        start = time.perf_counter()
        program = sf.export(model, (), inputs, dynamic_shapes=shapes)
        export_seconds = time.perf_counter() - start

        step("verifying against the module at three other shapes")
        report = program.verify(model, samples=3)

        step(f"writing {path.name}")
        sf.save(program, path)
        finish()

    shapes_tried = ", ".join("x".join(map(str, s.sizes.values())) for s in report.samples)
    table = summary_table(
        program_facts(program),
        export_seconds=export_seconds,
        verification=f"equal at {shapes_tried} (largest difference {report.max_difference:.1e})",
        file_name=path.name,
        file_bytes=path.stat().st_size,
    )
    console.print(table)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("minilm.still"))
