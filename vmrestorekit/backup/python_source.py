"""What a Python file imports when it is run or imported, by its text alone."""

from __future__ import annotations

import ast
import operator
import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

__all__ = ["Import", "read_imports"]

_COMPARE = {
    **{ast.Eq: operator.eq, ast.NotEq: operator.ne, ast.Lt: operator.lt, ast.LtE: operator.le},
    **{ast.Gt: operator.gt, ast.GtE: operator.ge},
}
_MOST_IMPORTS = 2_000  # of one file
_LONGEST_NAME = 255  # what is longer was not written by hand


class Import(NamedTuple):
    """One thing that a file imports, or names so that it may be loaded by its name."""

    how: str  # "import", "quoted" or "entry point": of a project, the group of entries and the entry
    level: int  # dots before the name
    name: str
    names: tuple[str, ...] = ()  # asked of the module: attributes, or modules in it


def read_imports(data: bytes, version: tuple[int, int], is_script: bool) -> tuple[Import, ...]:
    """Return what a file imports outside of functions; nothing if it is no valid Python.

    No more than 2,000 of what it names, and before the others what it imports for certain.
    """
    known = {
        "sys.platform": "linux",
        "os.name": "posix",
        "sys.version_info": (*version, 99),  # the last of its minor version
        "sys.version_info[0]": version[0],
        "sys.version_info[1]": version[1],
        "__name__": "__main__" if is_script else "",
    }
    try:
        with warnings.catch_warnings():  # of old escapes in strings and the like
            warnings.simplefilter("ignore")
            found = dict.fromkeys(_module_level(ast.parse(data), known))
    except (SyntaxError, ValueError, RecursionError, MemoryError, SystemError):
        return ()
    return tuple(_no_more(found))


def _no_more(found: Iterable[Import]) -> Iterator[Import]:
    left = _MOST_IMPORTS
    for each in sorted(found, key=lambda each: each.how == "quoted"):
        if any(len(name) > _LONGEST_NAME for name in (each.name, *each.names)):
            continue
        kept = each._replace(names=each.names[: max(0, left - 1)]) if each.how == "import" else each
        left -= 1 + len(kept.names)
        if left < 0:
            return
        yield kept


def _module_level(parsed: ast.Module, known: Mapping[str, Any]) -> Iterator[Import]:
    pending: deque[ast.AST] = deque([parsed])
    while pending:
        node = pending.popleft()  # in the order of the file: only so many count
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.Lambda():
                continue
            case ast.If():
                truth = _truth(node.test, known)
                pending += [] if truth is False else node.body
                pending += [] if truth is True else node.orelse
                continue
            case ast.Import():
                yield from (Import("import", 0, alias.name) for alias in node.names)
            case ast.ImportFrom():
                names = tuple(alias.name for alias in node.names)
                yield Import("import", node.level, node.module or "", names)
            case ast.Constant(str(text)) if "." in text and all(map(str.isidentifier, text.split("."))):
                yield Import("quoted", 0, text)
            case ast.Call(
                ast.Name("load_entry_point"),  # in scripts that setuptools writes
                [ast.Constant(str(project)), ast.Constant(str(group)), ast.Constant(str(name))],
            ):
                yield Import("entry point", 0, project, (group, name))
        pending += ast.iter_child_nodes(node)


def _truth(test: ast.expr, known: Mapping[str, Any]) -> bool | None:
    """Return the value of a condition, None if it depends on more than the platform and the version."""
    value: Any
    match test:
        case ast.Name("TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING"):
            return False
        case ast.Constant(value):
            return bool(value)
        case ast.UnaryOp(ast.Not(), operand):
            value = _truth(operand, known)
            return None if value is None else not value
        case ast.BoolOp(operation, operands):
            values = {_truth(operand, known) for operand in operands}
            decisive = isinstance(operation, ast.Or)  # one such operand is enough
            return decisive if decisive in values else None if None in values else not decisive
        case ast.Compare(left, [comparison], [ast.Constant(value)]):
            pass
        case ast.Compare(left, [comparison], [ast.Tuple(parts)]):
            value = tuple(part.value if isinstance(part, ast.Constant) else None for part in parts)
        case _:
            return None
    match left:
        case ast.Attribute(ast.Name(owner), attribute):
            name = f"{owner}.{attribute}"
        case ast.Subscript(ast.Attribute(ast.Name(owner), attribute), ast.Constant(0 | 1 as place)):
            name = f"{owner}.{attribute}[{place}]"
        case ast.Name(name):
            pass
        case _:
            return None
    try:
        return bool(_COMPARE[type(comparison)](known[name], value))
    except (KeyError, TypeError):
        return None
