"""What code something was computed with: results are only good as long as it is the same."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.util
from pathlib import Path

__all__ = ["source_digest"]


@functools.cache
def source_digest(module: str) -> str:
    """Return a digest of the code of a module of ours and of all of ours that it imports."""
    digest, seen, todo = hashlib.blake2b(digest_size=16), set(), [module]
    while todo:
        name = todo.pop()
        if name in seen:
            continue
        seen.add(name)
        try:
            spec = importlib.util.find_spec(name)
        except (
            ModuleNotFoundError,
            ValueError,
        ):  # what was imported from a module is none; no file behind it
            continue
        if spec is None or spec.origin is None:
            continue
        source = Path(spec.origin).read_bytes()
        digest.update(source)
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("vmrestorekit."):
                todo += [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
    return digest.hexdigest()
