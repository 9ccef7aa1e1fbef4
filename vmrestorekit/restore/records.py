"""Tables of records that compiled functions reach through an address.

numba hands an array from function to function as seven values, and a dozen tables made a hundred
functions slow to compile and slower to call. Here one record holds the address and the length of every table,
a function is given that record alone, and an accessor turns a table's row into a record again. Accessors look
at the index only if numba's bounds checking is on (`NUMBA_BOUNDSCHECK=1`).

Compiled code is cached, and numba notices edits only in the file of the function that Python calls. `entry`
therefore makes the contents of the files it is given a part of the cache's key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir
from numba import config, njit
from numba.core import types
from numba.extending import intrinsic

from vmrestorekit.restore.step_compiler import StepCompiler

__all__ = ["accessor", "compiled", "entry", "fingerprint", "lay_out", "record", "table"]

_OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy", "_nrt": False, "no_cfunc_wrapper": True}

compiled = njit(no_cpython_wrapper=True, pipeline_class=StepCompiler, **_OPTIONS)
entry = njit(cache=True, **_OPTIONS)


def record(**fields: str) -> np.dtype[Any]:
    """Return the type of a record with these fields, laid out as in C; `"60i8"` is an array of sixty."""
    return np.dtype(list(fields.items()), align=True)


def table(name: str) -> dict[str, str]:
    """Return the fields of a record that say where a table of that name lies and how long it is."""
    return {f"{name}_at": "u8", f"{name}_n": "i8"}


def lay_out(owner: npt.NDArray[Any], **tables: npt.NDArray[Any]) -> None:
    """Tell a record where its tables lie; the caller keeps them alive.

    Parameters
    ----------
    owner : ndarray of shape () or (1,)
        A record with the fields of `table` for each name.
    **tables : ndarray, one-dimensional
    """
    for name, rows in tables.items():
        if not rows.flags.c_contiguous or not rows.flags.writeable:
            raise ValueError(f"{name}: expected an array in one piece that can be written to")
        owner[f"{name}_at"], owner[f"{name}_n"] = rows.ctypes.data, len(rows)


def accessor(name: str, dtype: np.dtype[Any]) -> Callable[[Any, Any], Any]:
    """Return a function for compiled code: (record with such a table, index) -> the record of that row."""

    @intrinsic
    def row_at(typing_context: Any, owner: types.Type, index: types.Type) -> Any:
        row = _type_of(dtype)

        def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            where, length = (
                builder.load(
                    builder.bitcast(
                        builder.gep(
                            builder.bitcast(arguments[0], ir.IntType(8).as_pointer()),
                            [ir.Constant(ir.IntType(64), owner.offset(f"{name}{suffix}"))],
                        ),
                        ir.IntType(64).as_pointer(),
                    )
                )
                for suffix in ("_at", "_n")
            )
            at = context.cast(builder, arguments[1], index, types.int64)
            if config.BOUNDSCHECK:
                with builder.if_then(builder.icmp_unsigned(">=", at, length), likely=False):
                    message = (f"{name}: an index is out of bounds",)
                    context.call_conv.return_user_exc(builder, IndexError, message)
            first = builder.inttoptr(where, ir.IntType(8).as_pointer())
            place = builder.gep(first, [builder.mul(at, ir.Constant(ir.IntType(64), dtype.itemsize))])
            return builder.bitcast(place, context.get_value_type(row))

        return row(owner, index), generate

    return row_at


def _type_of(dtype: np.dtype[Any]) -> types.Record:
    from numba.np.numpy_support import from_dtype

    return from_dtype(dtype)


def fingerprint(*files: str) -> str:
    """Return a hash of the contents of files, for the closure of a cached function."""
    return hashlib.sha256(b"".join(Path(file).read_bytes() for file in files)).hexdigest()
