"""Objects that hold arrays, taken apart into plain values and a few arrays of bytes, and put together again.

Not what is stored says what is made: the classes and their fields are those that the code declares, and each
value has to fit its declaration. Arrays of one type stand one behind the other, so that a model of a thousand
small arrays is a file of eight. They are made easy to compress: whole numbers as differences, 64-bit keys as
places in one list of all there are; and of all numbers the first bytes, then the second ones, and so on.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Mapping
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np
import numpy.typing as npt

from vmrestorekit.predict.observed import PredictError

__all__ = ["Packer", "Unpacker", "expect"]

Bytes = npt.NDArray[np.uint8]
Array = npt.NDArray[Any]
# looks at the fields of an object before it is made; raises PredictError
Check = Callable[[Any, str], None]

DTYPES = {name: np.dtype(name) for name in ("bool", "int32", "int64", "uint64", "float32", "float64")}
KEYS = "keys"


def expect(condition: Any, where: str, what: str) -> None:
    """Raise a `PredictError` that says what was expected where, unless a condition holds."""
    if not condition:
        raise PredictError(f"{where}: expected {what}")


def fields_of(kind: type) -> dict[str, Any]:
    """Return what an object is made of: the parameters of its class, which are its attributes, by type."""
    hints = get_type_hints(kind.__init__)  # type: ignore[misc]
    return {name: hint for name, hint in hints.items() if name != "return"}


class Packer:
    """Takes objects apart. Their arrays are kept here, in the order in which they are met.

    Parameters
    ----------
    checks : mapping of type to callable
        As of `Unpacker`: what cannot be put together again is not taken apart.
    """

    def __init__(self, checks: Mapping[Any, Check]) -> None:
        self._checks = checks
        self._pieces: dict[str, list[Array]] = {name: [] for name in DTYPES}

    def take_apart(self, value: Any, kind: Any, where: str) -> Any:
        """Return an object as JSON can hold it; in the place of an array stands its length.

        Parameters
        ----------
        value : object
        kind : type
            What it is declared to be: an array, a number, a text, something optional, a tuple or mapping of
            such, or a class whose parameters are such and are kept under their names.
        where : str
            Named in errors.

        Raises
        ------
        PredictError
            If a value is not what it is declared to be, or a check fails.
        """
        origin, of = get_origin(kind), get_args(kind)
        if origin is np.ndarray:
            dtype = np.dtype(get_args(of[1])[0])
            is_such = isinstance(value, np.ndarray) and value.dtype == dtype and value.ndim == 1
            expect(is_such, where, f"a list of {dtype} to save, got {_type_of(value)}")
            self._pieces[dtype.name].append(value)
            return value.size
        if origin is types.UnionType:
            return None if value is None else self.take_apart(value, of[0], where)
        if origin is tuple:
            kinds = _each_of(of, len(value))
            return [
                self.take_apart(each, one, f"{where}[{number}]")
                for number, (each, one) in enumerate(zip(value, kinds, strict=True))
            ]
        if origin in (dict, Mapping):
            return {key: self.take_apart(each, of[1], f"{where}[{key!r}]") for key, each in value.items()}
        if kind in (int, float, str):
            return _plain(value, kind, where)
        expect(isinstance(value, kind), where, f"{kind.__name__} to save, got {_type_of(value)}")
        if kind in self._checks:
            self._checks[kind](value, where)
        return {
            name: self.take_apart(getattr(value, name), one, f"{where}.{name}")
            for name, one in fields_of(kind).items()
        }

    def members(self) -> dict[str, Bytes]:
        """Return all arrays, by the names under which `Unpacker` expects them."""
        streams = {
            name: np.concatenate([np.zeros(0, DTYPES[name]), *pieces])
            for name, pieces in self._pieces.items()
        }
        keys, places = np.unique(streams["uint64"], return_inverse=True)
        streams["uint64"] = places.astype(np.int64)
        return {KEYS: _squeezed(keys), **{name: _squeezed(stream) for name, stream in streams.items()}}


class Unpacker:
    """Puts together what a `Packer` took apart.

    Parameters
    ----------
    members : mapping of str to ndarray of uint8
        From anywhere.
    checks : mapping of type to callable
        What is to be checked of the fields of a class before an object is made of them.

    Raises
    ------
    PredictError
        If these are no such arrays.
    """

    def __init__(self, members: Mapping[str, Array], checks: Mapping[Any, Check]) -> None:
        self._checks = checks
        expect(members.keys() == {KEYS, *DTYPES}, "arrays", f"{', '.join([KEYS, *DTYPES])}")
        stored = DTYPES | {KEYS: DTYPES["uint64"], "uint64": DTYPES["int64"]}
        self._left = {name: _unsqueezed(members[name], dtype, name) for name, dtype in stored.items()}
        keys, places = self._left.pop(KEYS), self._left["uint64"]
        expect(((places >= 0) & (places < keys.size)).all(), "uint64", "places in the list of keys")
        self._left["uint64"] = keys[places]

    def put_together(self, plain: Any, kind: Any, where: str) -> Any:
        """Return the object that `Packer.take_apart` took apart.

        Raises
        ------
        PredictError
            If something does not fit its declaration, or a check fails.
        """
        origin, of = get_origin(kind), get_args(kind)
        if origin is np.ndarray:
            return self._next(plain, np.dtype(get_args(of[1])[0]).name, where)
        if origin is types.UnionType:
            return None if plain is None else self.put_together(plain, of[0], where)
        if origin is tuple:
            expect(isinstance(plain, list), where, "a list")
            kinds = _each_of(of, len(plain))
            expect(len(plain) == len(kinds), where, f"{len(kinds)} parts, got {len(plain)}")
            return tuple(
                self.put_together(each, one, f"{where}[{number}]")
                for number, (each, one) in enumerate(zip(plain, kinds, strict=True))
            )
        if origin in (dict, Mapping):
            expect(isinstance(plain, dict), where, "names and values")
            return {key: self.put_together(each, of[1], f"{where}[{key!r}]") for key, each in plain.items()}
        if kind in (int, float, str):
            return _plain(plain, kind, where)
        fields = fields_of(kind)
        is_such = isinstance(plain, dict) and plain.keys() == fields.keys()
        expect(is_such, where, f"{', '.join(fields)}")
        # in the order of the code, which is that in which the arrays were put away
        found = {name: self.put_together(plain[name], one, f"{where}.{name}") for name, one in fields.items()}
        if kind in self._checks:
            self._checks[kind](types.SimpleNamespace(**found), where)
        return kind(**found)

    def _next(self, size: Any, name: str, where: str) -> Array:
        left = self._left[name]
        is_length = isinstance(size, int) and not isinstance(size, bool) and 0 <= size <= left.size
        expect(is_length, where, f"the length of an array of at most {left.size}, got {size!r:.60}")
        self._left[name] = left[size:]
        return left[:size].copy()

    def expect_nothing_left(self) -> None:
        """Raise a `PredictError` if there are numbers that belong to no object."""
        left = [name for name, stream in self._left.items() if stream.size]
        expect(not left, "arrays", f"no numbers that belong to nothing, got some of {', '.join(left)}")


def _type_of(value: Any) -> str:
    if isinstance(value, np.ndarray):
        return f"{value.dtype} of shape {value.shape}"
    return type(value).__name__


def _each_of(of: tuple[Any, ...], size: int) -> tuple[Any, ...]:
    """Return the declared type of each entry of a tuple."""
    return of[:1] * size if of[-1] is ... else of


def _plain(value: Any, kind: type, where: str) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    is_such = isinstance(value, int | float if kind is float else kind) and not isinstance(value, bool)
    expect(is_such and (kind is str or math.isfinite(value)), where, f"{kind.__name__}, got {value!r:.60}")
    return value


def _squeezed(values: Array) -> Bytes:
    """Return numbers as a row of their lowest bytes, one of the next ones, and so on."""
    if values.dtype.kind in "iu":
        values = np.diff(values, prepend=values.dtype.type(0))  # wraps around, and back in `_unsqueezed`
    little = values.astype(values.dtype.newbyteorder("<"))
    return np.ascontiguousarray(little.view(np.uint8).reshape(-1, values.itemsize).T)


def _unsqueezed(rows: Array, dtype: np.dtype[Any], where: str) -> Array:
    is_such = rows.dtype == np.uint8 and rows.ndim == 2 and rows.shape[0] == dtype.itemsize
    expect(is_such, where, f"{dtype.itemsize} rows of bytes, got {rows.dtype} of shape {rows.shape}")
    if dtype == np.bool_:
        truths: Array = rows[0] != 0  # a byte above 1 would be no bool
        return truths
    values = np.ascontiguousarray(rows.T).view(dtype.newbyteorder("<"))[:, 0].astype(dtype)
    found: Array = np.cumsum(values, dtype=dtype) if dtype.kind in "iu" else values
    return found
