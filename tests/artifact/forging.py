"""Files that were changed and made to fit again."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any


def forged(
    original: Path,
    path: Path,
    change: Callable[[dict[str, Any]], None] = lambda doc: None,
    manifest: Callable[[dict[str, Any]], None] = lambda doc: None,
) -> Path:
    """The file with a changed document, digests and all made to fit."""
    with zipfile.ZipFile(original) as archive:
        members = {n: archive.read(n) for n in archive.namelist()}
    (name,) = {"program.json", "programs.json"} & set(members)
    document = json.loads(members[name])
    change(document)
    text = members[name] = json.dumps(document).encode()
    listing = json.loads(members["manifest.json"])
    for member in listing["members"]:
        if member["name"] == name:
            member.update(size=len(text), digests=[hashlib.sha256(text).hexdigest()])
    manifest(listing)
    members["manifest.json"] = json.dumps(listing).encode()
    with zipfile.ZipFile(path, "w") as archive:
        for member_name, data in members.items():
            archive.writestr(member_name, data)
    return path
