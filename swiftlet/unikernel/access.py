"""Words by which compiled adapters read and write memory: each is an instruction or two. Imports numba."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import typeof, types
from numba.core import cgutils
from numba.extending import intrinsic

_BYTE, _WORD, _DOUBLE = ir.IntType(8), ir.IntType(64), ir.DoubleType()


def _reader(kind: Any, code: ir.Type) -> Any:
    def make(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.load(build.inttoptr(values[0], code.as_pointer()))

    return kind(types.int64), make


def _writer(kind: Any, code: ir.Type) -> Any:
    def make(context: Any, build: Any, signature: Any, values: Any) -> Any:
        value = values[1] if values[1].type == code else build.trunc(values[1], code)
        build.store(value, build.inttoptr(values[0], code.as_pointer()))
        return context.get_dummy_value()

    return types.void(types.int64, kind), make


def _pointer(kind: Any) -> Any:
    def make(context: Any, build: Any, signature: Any, values: Any) -> Any:
        return build.inttoptr(values[0], context.get_value_type(types.CPointer(kind)))

    return types.CPointer(kind)(types.int64), make


@intrinsic  # type: ignore[untyped-decorator]
def read_int(context: Any, place: Any) -> Any:
    """The signed word at an address."""
    return _reader(types.int64, _WORD)


@intrinsic  # type: ignore[untyped-decorator]
def read_float(context: Any, place: Any) -> Any:
    """The double at an address."""
    return _reader(types.float64, _DOUBLE)


@intrinsic  # type: ignore[untyped-decorator]
def write_int(context: Any, place: Any, value: Any) -> Any:
    """Write a signed word."""
    return _writer(types.int64, _WORD)


@intrinsic  # type: ignore[untyped-decorator]
def write_float(context: Any, place: Any, value: Any) -> Any:
    """Write a double."""
    return _writer(types.float64, _DOUBLE)


@intrinsic  # type: ignore[untyped-decorator]
def write_byte(context: Any, place: Any, value: Any) -> Any:
    """Write a byte."""
    return _writer(types.int64, _BYTE)


@intrinsic  # type: ignore[untyped-decorator]
def pointer_int(context: Any, place: Any) -> Any:
    """An address as a pointer to signed words, for `carray`."""
    return _pointer(types.int64)


@intrinsic  # type: ignore[untyped-decorator]
def pointer_float(context: Any, place: Any) -> Any:
    """An address as a pointer to doubles, for `carray`."""
    return _pointer(types.float64)


@intrinsic  # type: ignore[untyped-decorator]
def read_bytes(context: Any, place: Any, size: Any) -> Any:
    """The bytes at an address, which nobody owns and nobody writes to."""
    kind = typeof(b"")

    def make(context_: Any, build: Any, signature: Any, values: Any) -> Any:
        made = cgutils.create_struct_proxy(kind)(context_, build)
        size_code = values[1]
        made.data = build.inttoptr(values[0], _BYTE.as_pointer())
        made.nitems = size_code
        made.itemsize = ir.Constant(_WORD, 1)
        made.shape = cgutils.pack_array(build, [size_code])
        made.strides = cgutils.pack_array(build, [ir.Constant(_WORD, 1)])
        made.meminfo = ir.Constant(made.meminfo.type, None)
        made.parent = ir.Constant(made.parent.type, None)
        return made._getvalue()

    return kind(types.int64, types.int64), make
