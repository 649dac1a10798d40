"""Capture the shared zoo's models as graphs of torch functions, and compare with eager.

    python benchmarks/capture_zoo.py [--cases 'hf_*,nn_*'] [--level aten]

Each captured graph is called on the example and on the case's two other inputs of other sizes. A
refusal is an error of ours; anything else that is not equal counts as wrong. Exit code 1 if any is.
"""

from __future__ import annotations

import argparse
import copy
import fnmatch
import sys
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT / "src"), str(ROOT)]

import torch  # noqa: E402
from benchmarks.zoo import zoo_folder  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402

import stillframe as sf  # noqa: E402


def check(case: Any, to_dims: Any, level: str) -> str:
    """``"ok"``, or ``"refused: ..."``; raises where the graph differs from eager."""
    module, args, kwargs, spec = case.build()
    dims = to_dims(spec, sf.Dim)
    try:
        graph = sf.capture(module, args, kwargs, dynamic_shapes=dims, level=level)
    except sf.StillframeError as error:
        return f"refused: {type(error).__name__}: {error.what}"
    for inputs, keywords in ((args, kwargs), *case.other_inputs()):
        again = copy.deepcopy((inputs, keywords or {}))
        with torch.no_grad():
            torch.manual_seed(0)
            want = pytree.tree_leaves(module(*inputs, **(keywords or {})))
            torch.manual_seed(0)
            got = pytree.tree_leaves(graph(*again[0], **again[1]))
        for a, b in zip(got, want, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-4, equal_nan=True)
    return "ok"


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cases", default="*", help="globs on names, with commas")
    parser.add_argument("--level", default="torch", choices=("torch", "aten"))
    options = parser.parse_args()
    folder = zoo_folder()
    if folder is None:
        print("the zoo is not here: set STILLFRAME_ZOO to the folder with run_zoo.py")
        return 2
    sys.modules.pop("zoo", None)
    sys.path.insert(0, str(folder))
    import zoo
    from core import to_dims

    warnings.filterwarnings("ignore")
    torch.set_num_threads(1)
    counts: Counter[str] = Counter()
    for name, case in zoo.CASES.items():
        if not any(fnmatch.fnmatch(name, pattern) for pattern in options.cases.split(",")):
            continue
        try:
            verdict = check(case, to_dims, options.level)
        except Exception as error:
            verdict = f"wrong: {type(error).__name__}: {error}"[:300]
        counts[verdict.partition(":")[0]] += 1
        print(f"{name}: {' '.join(verdict.split())}", flush=True)
    print(dict(counts))
    return 1 if counts["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
