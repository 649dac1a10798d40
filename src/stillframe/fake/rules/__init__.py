"""Shape rules by operator family. Importing this folder registers all of them.

Every module in the folder is imported, so a new family is a new file and nothing else.
"""

from __future__ import annotations

import importlib
import pkgutil

for _module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{_module.name}")
