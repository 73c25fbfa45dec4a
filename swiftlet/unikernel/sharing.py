"""Memory that tasks share, for Numba: an array whose data is a symbol, which whoever links the tasks defines.

Numba would copy an array that it finds among a function's globals into the code, as a constant. Imports numba.
"""

from __future__ import annotations

import ctypes
from typing import Any

import llvmlite.binding as llvm
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.core.datamodel import register_default
from numba.core.datamodel.models import ArrayModel
from numba.core.imputils import lower_constant
from numba.extending import intrinsic, overload, typeof_impl

from swiftlet.unikernel import declare

_WORD = ir.IntType(64)
_BYTES = 8


class Shared:
    """What `declare.shared` returns while a program is built. symbol: of its memory."""

    def __init__(self, symbol: str, item: str, shape: tuple[int, ...]) -> None:
        # Numba loads what a task calls into this process, where the symbol has to be something; it is never used.
        self._here = ctypes.create_string_buffer(_BYTES)
        llvm.add_symbol(symbol, ctypes.addressof(self._here))
        self.symbol = symbol
        self.item = item
        self.shape = shape

    @property
    def bytes(self) -> int:
        """How much memory it takes."""
        count = _BYTES
        for each in self.shape:
            count *= each
        return count


class _SharedType(types.Array):  # type: ignore[misc]
    """An array that lies at a symbol."""

    def __init__(self, dtype: Any, ndim: int) -> None:
        super().__init__(dtype, ndim, "C", name=f"shared({dtype}, {ndim}d)")

    def copy(self, dtype: Any = None, ndim: Any = None, layout: Any = None, readonly: Any = None) -> Any:
        """Numba makes what is global read-only this way, which this is not; a part of it is an array as any other."""
        if dtype is None and ndim is None and layout is None:
            return self
        return types.Array(dtype or self.dtype, self.ndim if ndim is None else ndim, layout or self.layout)


register_default(_SharedType)(ArrayModel)


@typeof_impl.register(Shared)  # type: ignore[untyped-decorator]
def _typeof(value: Shared, context: Any) -> Any:
    return _SharedType(getattr(types, value.item), len(value.shape))


@lower_constant(_SharedType)  # type: ignore[untyped-decorator]
def _constant(context: Any, build: Any, kind: Any, value: Shared) -> Any:
    module = build.module
    place = module.globals.get(value.symbol)
    if place is None:
        place = cgutils.add_global_variable(module, ir.IntType(8), value.symbol)
    made = cgutils.create_struct_proxy(kind)(context, build)
    strides = [_BYTES] if len(value.shape) == 1 else [_BYTES * value.shape[1], _BYTES]
    made.data = build.bitcast(place, made.data.type)
    made.nitems = ir.Constant(_WORD, value.bytes // _BYTES)
    made.itemsize = ir.Constant(_WORD, _BYTES)
    made.shape = cgutils.pack_array(build, [ir.Constant(_WORD, each) for each in value.shape])
    made.strides = cgutils.pack_array(build, [ir.Constant(_WORD, each) for each in strides])
    made.meminfo = ir.Constant(made.meminfo.type, None)
    made.parent = ir.Constant(made.parent.type, None)
    return made._getvalue()


def _element(context: Any, build: Any, signature: Any, values: Any) -> Any:
    kind = signature.args[0]
    array = context.make_array(kind)(context, build, values[0])
    return cgutils.get_item_pointer(context, build, kind, array, [values[1]], boundscheck=False)


@intrinsic  # type: ignore[untyped-decorator]
def _add(context: Any, array: Any, index: Any, value: Any) -> Any:
    def make(context_: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.atomic_rmw("add", _element(context_, build, signature, values), values[2], "seq_cst")

    return types.int64(array, types.int64, types.int64), make


@intrinsic  # type: ignore[untyped-decorator]
def _swap(context: Any, array: Any, index: Any, expected: Any, value: Any) -> Any:
    def make(context_: Any, build: Any, signature: Any, values: Any) -> Any:
        place = _element(context_, build, signature, values)
        return build.extract_value(build.cmpxchg(place, values[2], values[3], "seq_cst", "seq_cst"), 1)

    return types.boolean(array, types.int64, types.int64, types.int64), make


def _is_words(array: Any) -> bool:
    return isinstance(array, types.Array) and array.ndim == 1 and array.dtype == types.int64


@overload(declare.atomic_add)  # type: ignore[untyped-decorator]
def _atomic_add(array: Any, index: Any, value: Any) -> Any:
    if not _is_words(array):
        return None

    def add(array: Any, index: Any, value: Any) -> Any:
        if not 0 <= index < len(array):
            raise IndexError("atomic_add: index is out of bounds")
        return _add(array, index, value)

    return add


@overload(declare.atomic_swap)  # type: ignore[untyped-decorator]
def _atomic_swap(array: Any, index: Any, expected: Any, value: Any) -> Any:
    if not _is_words(array):
        return None

    def swap(array: Any, index: Any, expected: Any, value: Any) -> Any:
        if not 0 <= index < len(array):
            raise IndexError("atomic_swap: index is out of bounds")
        return _swap(array, index, expected, value)

    return swap
