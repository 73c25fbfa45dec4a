"""Tasks to object code, by Numba's core functions: a typed Python function becomes machine code that needs no Python.

Every task gets an adapter of one shape, so that who calls it needs to know no types::

    int32 adapter(int64 *result, void **exception, int64 arguments, int64 length, int64 output, int64 capacity)

It reads the arguments as the wire has them, calls the task, and writes what that returns; `result` is how many bytes.
The status is 0, or that of an exception, which `exception` then describes.
"""

from __future__ import annotations

import os
import pickle
import re
import typing
from collections.abc import Callable
from typing import Any, NamedTuple

from swiftlet.unikernel import level

if not level.chosen():  # numba reads it when it is imported
    level.choose(level.DEFAULT)

import llvmlite.binding as llvm
import numba
from numba.core import codegen, compiler, errors, sigutils, types
from numba.core.compiler_lock import global_compiler_lock
from numba.core.registry import cpu_target
from numba.core.runtime import rtsys

from swiftlet.model.error import InputError
from swiftlet.unikernel import access, adapter, arithmetic, declare, failure, located, refusal
from swiftlet.unikernel.load import load, signature_of
from swiftlet.unikernel.metal.assemble import optimised, target_machine
from swiftlet.unikernel.metal.emit import with_attributes
from swiftlet.unikernel.sharing import Shared
from swiftlet.unikernel.signature import Signature, name_of

assert arithmetic  # imported for what it tells Numba

_WORDS = (
    "read_int", "read_float", "read_bytes", "write_int", "write_float", "write_byte", "pointer_int", "pointer_float",
)  # fmt: skip


class _Codegen(codegen.AOTCPUCodegen):  # type: ignore[misc]
    """Static code below 2 GiB."""

    def _customize_tm_options(self, options: dict[str, Any]) -> None:
        options.update(cpu=self._cpu_name, reloc="static", codemodel="small", features=self._tm_features)


class Compiled(NamedTuple):
    """An object, and the tasks in it, in order: the symbol of the n-th adapter is `task_n`.

    shared: (symbol, bytes) of the memory that tasks share, which whoever links them defines.
    """

    object: bytes
    signatures: tuple[Signature, ...]
    shared: tuple[tuple[str, int], ...] = ()


def jitted(function: Callable[..., Any]) -> Any:
    """What a marked function is while a program is built."""
    return numba.njit(boundscheck=True, error_model="python")(function)


def compiled(path: str) -> Compiled:
    """Compile a program. Raises InputError with the file, the line and the reason."""
    rtsys.initialize(cpu_target.target_context)
    name = os.path.basename(path)
    memory: list[Shared] = []

    def share(item: str, shape: tuple[int, ...]) -> Shared:
        memory.append(Shared(f"shared_{len(memory)}", item, shape))
        return memory[-1]

    declare._compile, declare._share = jitted, share
    try:
        functions: tuple[Any, ...] = load(path).functions
    finally:
        declare._compile = declare._share = None
    signatures = tuple(signature_of(each.py_func, name) for each in functions)
    flags = compiler.Flags()
    flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
    flags.nrt, flags.error_model, flags.boundscheck = True, "python", True
    context = cpu_target.target_context.with_aot_codegen("tasks")
    context._internal_codegen = _Codegen("tasks", level.processor())
    with global_compiler_lock, located.lines():
        library = context.codegen().create_library("tasks")
        library._optimize_final_module = lambda: None  # it would drop what is called by another name only
        names = [
            _adapter(context, flags, library, each, signature, number, path)
            for number, (each, signature) in enumerate(zip(functions, signatures, strict=True))
        ]
        library.finalize()
        shared = tuple((each.symbol, each.bytes) for each in memory)
        return Compiled(_emitted(library._final_module, names), signatures, shared)


def _adapter(
    context: Any, flags: Any, library: Any, function: Any, signature: Signature, number: int, path: str
) -> str:
    space = {"task": function, "carray": numba.carray, **{name: getattr(access, name) for name in _WORDS}}
    hints = typing.get_type_hints(function.py_func)
    text, kinds = adapter.source(signature, number, [hints[name] for name, _ in signature.arguments])
    space |= kinds
    exec(text, space)
    arguments, result = sigutils.normalize_signature("int64(int64, int64, int64, int64)")
    try:
        made = compiler.compile_extra(
            cpu_target.typing_context,
            context,
            space[f"adapter_{number}"],
            arguments,
            result,
            flags,
            {},
            library=library,
        )
    except (errors.NumbaError, ImportError, NotImplementedError, AttributeError) as error:
        if not refusal.is_the_programs(error):
            raise
        _check_result(function, signature, path)
        raise refusal.refusal(error, path) from None
    _check_result(function, signature, path)
    return str(made.fndesc.llvm_func_name)


_RESULTS: dict[str, tuple[Any, ...]] = {
    "i": (types.int64, types.int32, types.uint8),
    "f": (types.float64,),
    "b": (types.boolean,),
}


_SHOWN = {types.none: "nothing", types.int64: "int", types.float64: "float", types.boolean: "bool"}
"""Results as a program writes them."""


def _check_result(function: Any, signature: Signature, path: str) -> None:
    """Refuse a task that returns another kind of number than it says: CPython would not turn it into that one."""
    for each in function.overloads.values():
        found = each.signature.return_type
        is_other = signature.result in _RESULTS and numba.types.unliteral(found) not in _RESULTS[signature.result]
        if found == types.none or is_other:
            shown = _SHOWN.get(found, refusal.kinds(str(numba.types.unliteral(found))))
            shown = "nothing on one of its paths" if isinstance(found, types.Optional) else shown  # type: ignore[attr-defined]
            place = f"{os.path.basename(path)}:{signature.line}: {signature.name}"
            raise InputError(f"{place} returns {shown}, and says {name_of(signature.result)}", "return what it says")


def _readable(name: str) -> str:
    """A function's name as its program has it, from the one that Numba has made of it."""
    parts, rest = [], name.removeprefix("_ZN")
    while match := re.match(r"(\d+)", rest):
        size = int(match[1])
        parts.append(rest[match.end() : match.end() + size])
        rest = rest[match.end() + size :]
    return ".".join(parts) if parts and name.startswith("_ZN") else name


def _emitted(module: Any, names: list[str]) -> bytes:
    """The module's object, with nothing in it but what the adapters need."""
    module = llvm.parse_assembly(_told(_resolved(str(module))))
    for number, name in enumerate(names):
        function = module.get_function(name)
        function.name = f"task_{number}"
        function.linkage = "external"
    kept = {f"task_{number}" for number in range(len(names))}
    for each in module.functions:
        if not each.is_declaration:
            each.add_function_attribute("noredzone")
            if each.name not in kept:
                each.linkage = "internal"
                each.name = _readable(each.name)  # LLVM numbers those that are there already
    for each in module.global_variables:
        if not each.is_declaration:
            each.linkage = "internal"
    machine = target_machine(level.processor(), "", 3)
    module = optimised(with_attributes(str(module)), machine, 3)
    return bytes(machine.emit_object(module))


_UNRESOLVED = re.compile(r'^@"\.numba\.unresolved\$([^"]*)" = .*$', re.MULTILINE)


def _resolved(code: str) -> str:
    """LLVM's text in which functions that call themselves are found: Numba leaves that to its run time."""
    return _UNRESOLVED.sub(r'@".numba.unresolved$\1" = internal constant ptr @\1', code)


_PICKLED = r"@(\.const\.pickledata\.[0-9a-f]+(?:\.\d+)*)"  # LLVM numbers a name anew whenever it links two
_PICKLE = re.compile(rf'^{_PICKLED} = internal constant \[(\d+) x i8\] c"(.*)"(.*)$', re.MULTILINE)
_PICKLE_LENGTH = re.compile(rf"(ptr {_PICKLED}, i32) (\d+)")


def _told(code: str) -> str:
    """LLVM's text with its exceptions in words, where Numba has pickles: whoever gets them may have no Python."""
    lengths: dict[str, int] = {}

    def word(match: re.Match[str]) -> str:
        data = _exception(_bytes_of(match[3]))
        lengths[match[1]] = len(data)
        quoted = "".join(f"\\{byte:02X}" for byte in data)
        return f'@{match[1]} = internal constant [{len(data)} x i8] c"{quoted}"{match[4]}'

    worded = _PICKLE.sub(word, code)
    return _PICKLE_LENGTH.sub(lambda match: f"{match[1]} {lengths[match[2]]}", worded)


def _bytes_of(quoted: str) -> bytes:
    """What a constant of LLVM's text holds: a backslash stands before itself, or before two hexadecimal digits."""
    return re.sub(
        rb"\\(\\|[0-9A-Fa-f]{2})",
        lambda match: b"\\" if match[1] == b"\\" else bytes([int(match[1], 16)]),
        quoted.encode("latin-1"),
    )


def _exception(data: bytes) -> bytes:
    """A pickled exception in words. The pickle was made in this process, of what the program says."""
    kind, arguments, place = pickle.loads(data)
    function, file, line = place or ("", "", 0)
    name, message = _said_by(kind, arguments or ())
    if file == "<string>":  # the adapter's own
        function, file, line = "", "", 0
    return failure.encoded(name, message, str(function), os.path.basename(str(file)), int(line or 0))


def _said_by(kind: type[Exception], arguments: tuple[Any, ...]) -> tuple[str, str]:
    """An exception's own kind and its `str`: `OSError(2, "")` is a FileNotFoundError."""
    try:
        made = kind(*arguments)
        return type(made).__name__, str(made)
    except Exception:  # the program's own kind, which may do anything
        return kind.__name__, str(arguments[0]) if arguments else ""
