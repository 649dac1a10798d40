"""Which operators of the shared zoo have no shape rule, and how often they are met.

    python benchmarks/fallbacks.py [--cases 'hf_*,nn_*'] [--lines]

Every case is captured once. An operator without a rule is answered by torch's own shape function
or taken apart, which is slower and may add guards. A fallback inside another counts too.
"""

from __future__ import annotations

import argparse
import fnmatch
import gc
import sys
import warnings
from collections import Counter, defaultdict
from pathlib import Path

from zoo import ROOT, zoo_folder


def fallbacks_of(folder: Path, globs: list[str]) -> dict[str, Counter[str]]:
    """By case name: operators that were answered without a rule."""
    sys.path[:0] = [str(ROOT / "src"), str(folder)]
    sys.modules.pop("zoo")  # the zoo's own module has the name of our script
    import torch
    from zoo import CASES, to_dims  # type: ignore[attr-defined]

    import stillframe

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    found: dict[str, Counter[str]] = {}
    names = [n for n in CASES if any(fnmatch.fnmatch(n, g) for g in globs)]
    for i, name in enumerate(names):
        print(f"\r{i + 1}/{len(names)} {name:60}", end="", file=sys.stderr, flush=True)
        try:
            module, args, kwargs, spec = CASES[name].build()
            shapes = to_dims(spec, stillframe.Dim)
            program = stillframe.export(module, args, kwargs, dynamic_shapes=shapes)
            found[name] = Counter(program.fallbacks)
        except Exception as e:  # zoo.py judges these
            print(f"\n{name}: {type(e).__name__}: {str(e).partition(chr(10))[0]}", file=sys.stderr)
        gc.collect()
    print(file=sys.stderr)
    return found


def show(found: dict[str, Counter[str]], *, lines: bool) -> None:
    """The operators, most frequent first, with the cases that have them."""
    calls: Counter[str] = Counter()
    cases: dict[str, list[str]] = defaultdict(list)
    for name, counts in found.items():
        calls.update(counts)
        for operator in counts:
            cases[operator].append(name)
    affected = sum(1 for counts in found.values() if counts)
    print(f"{affected} of {len(found)} cases meet an operator without a rule")
    for operator, count in calls.most_common():
        names = cases[operator]
        shown = names if lines else names[:3]
        print(f"{count:6} x {operator}, in {len(names)} cases: {', '.join(shown)}")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--cases", default="*", help="globs on names, with commas")
    parser.add_argument("--lines", action="store_true", help="name all cases of an operator")
    options = parser.parse_args()
    folder = zoo_folder()
    if folder is None:
        print("no zoo: set STILLFRAME_ZOO to the folder with zoo.py", file=sys.stderr)
        return 2
    show(fallbacks_of(folder, options.cases.split(",")), lines=options.lines)
    return 0


if __name__ == "__main__":
    sys.exit(main())
