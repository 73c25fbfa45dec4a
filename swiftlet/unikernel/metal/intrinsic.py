"""The words of the dialect that are one instruction, or few: how LLVM is told of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from llvmlite import ir

from swiftlet.unikernel.metal.kind import BOOL, DOUBLE, F64, I64, NOTHING, U64, WORD, Kind

_BYTE, _SHORT, _LONG = ir.IntType(8), ir.IntType(16), ir.IntType(32)
_VOID = ir.VoidType()
_WIDTHS = {8: ("b", "q"), 16: ("w", "r"), 32: ("l", "r"), 64: ("q", "r")}
_DOUBLE_WORDS = {"sqrt": "sqrt", "fabs": "fabs", "floor": "floor", "ceil": "ceil", "trunc": "trunc", "nearest": "rint"}


class Maker(NamedTuple):
    """How a word is made. kinds: of its arguments; empty for integers, as many as there are."""

    make: Callable[..., Any]
    result: Kind = U64
    kinds: tuple[Kind, ...] = ()


def device_read(build: ir.IRBuilder, place: Any, bits: int) -> Any:
    """Read a device's register once, as wide as it is."""
    width, register = _WIDTHS[bits]
    kind = ir.FunctionType(ir.IntType(bits), [WORD])
    return build.asm(kind, f"mov{width} ($1), $0", f"={register},r,~{{memory}}", [place], True)


def device_write(build: ir.IRBuilder, place: Any, code: Any) -> None:
    """Write a device's register once, as wide as it is."""
    width, register = _WIDTHS[code.type.width]
    kind = ir.FunctionType(_VOID, [WORD, code.type])
    build.asm(kind, f"mov{width} $1, ($0)", f"r,{register},~{{memory}}", [place, code], True)


def _plain(text: str, *, arguments: str = "", clobbers: str = "~{memory}") -> Callable[..., Any]:
    """An instruction without a result. arguments: a register for each, as `{cx},{ax}`."""

    def make(build: ir.IRBuilder, *codes: Any) -> Any:
        kind = ir.FunctionType(_VOID, [each.type for each in codes])
        constraints = ",".join(filter(None, (arguments, clobbers)))
        return build.asm(kind, text, constraints, list(codes), True)

    return make


def _out(bits: int, width: str) -> Callable[..., Any]:
    register = {8: "al", 16: "ax", 32: "eax"}[bits]

    def make(build: ir.IRBuilder, port: Any, value: Any) -> Any:
        kind = ir.FunctionType(_VOID, [_SHORT, ir.IntType(bits)])
        words = [build.trunc(port, _SHORT), build.trunc(value, ir.IntType(bits))]
        return build.asm(kind, f"out{width} %{register}, %dx", f"{{dx}},{{{register}}},~{{memory}}", words, True)

    return make


def _in(bits: int, width: str) -> Callable[..., Any]:
    register = {8: "al", 32: "eax"}[bits]

    def make(build: ir.IRBuilder, port: Any) -> Any:
        kind = ir.FunctionType(ir.IntType(bits), [_SHORT])
        words = [build.trunc(port, _SHORT)]
        read = build.asm(kind, f"in{width} %dx, %{register}", f"={{{register}}},{{dx}},~{{memory}}", words, True)
        return build.zext(read, WORD)

    return make


def _joined(build: ir.IRBuilder, pair: Any) -> Any:
    low, high = (build.zext(build.extract_value(pair, each), WORD) for each in (0, 1))
    return build.or_(low, build.shl(high, ir.Constant(WORD, 32)))


_PAIR = ir.LiteralStructType([_LONG, _LONG])


def _counter(build: ir.IRBuilder) -> Any:
    return _joined(build, build.asm(ir.FunctionType(_PAIR, []), "rdtsc", "={eax},={edx}", [], True))


def _extended_state(build: ir.IRBuilder) -> Any:
    words = [ir.Constant(_LONG, 0)]
    return _joined(build, build.asm(ir.FunctionType(_PAIR, [_LONG]), "xgetbv", "={eax},={edx},{ecx}", words, True))


def _read_msr(build: ir.IRBuilder, number: Any) -> Any:
    kind = ir.FunctionType(_PAIR, [_LONG])
    words = [build.trunc(number, _LONG)]
    return _joined(build, build.asm(kind, "rdmsr", "={eax},={edx},{ecx},~{memory}", words, True))


def _write_msr(build: ir.IRBuilder, number: Any, value: Any) -> Any:
    kind = ir.FunctionType(_VOID, [_LONG, _LONG, _LONG])
    high = build.lshr(value, ir.Constant(WORD, 32))
    words = [build.trunc(each, _LONG) for each in (number, value, high)]
    return build.asm(kind, "wrmsr", "{ecx},{eax},{edx},~{memory}", words, True)


def _cpuid(build: ir.IRBuilder, leaf: Any, sub: Any, register: Any) -> Any:
    four = ir.LiteralStructType([_LONG] * 4)
    kind = ir.FunctionType(four, [_LONG, _LONG])
    words = [build.trunc(each, _LONG) for each in (leaf, sub)]
    told = build.asm(kind, "cpuid", "={eax},={ebx},={ecx},={edx},{eax},{ecx}", words, True)
    return build.zext(build.extract_value(told, int(register.constant)), WORD)


def _own(segment: str) -> Callable[..., Any]:
    def make(build: ir.IRBuilder, offset: Any) -> Any:
        return build.asm(ir.FunctionType(WORD, [WORD]), f"movq %{segment}:($1), $0", "=r,r", [offset], True)

    return make


def _call(build: ir.IRBuilder, address: Any, *codes: Any) -> Any:
    kind = ir.FunctionType(WORD, [each.type for each in codes])
    return build.call(build.inttoptr(address, kind.as_pointer()), list(codes))


def _of_double(word: str) -> Callable[..., Any]:
    def make(build: ir.IRBuilder, value: Any) -> Any:
        return build.call(build.module.declare_intrinsic(f"llvm.{word}", [DOUBLE]), [value])

    return make


def _swap(bits: int) -> Callable[..., Any]:
    narrow = ir.IntType(bits)

    def make(build: ir.IRBuilder, value: Any) -> Any:
        return build.zext(build.bswap(build.trunc(value, narrow)), WORD)

    return make


def _high_product(build: ir.IRBuilder, a: Any, b: Any) -> Any:
    wide = ir.IntType(128)
    product = build.mul(build.zext(a, wide), build.zext(b, wide))
    return build.trunc(build.lshr(product, ir.Constant(wide, 64)), WORD)


def _leading_zeros(build: ir.IRBuilder, value: Any) -> Any:
    return build.ctlz(value, ir.Constant(ir.IntType(1), 0))


def _same(build: ir.IRBuilder, value: Any) -> Any:
    return value


_REGISTERS = ("{rdi}", "{rsi}", "{rdx}", "{r10}", "{r8}", "{r9}")


def _system_call(build: ir.IRBuilder, number: Any, *codes: Any) -> Any:
    """System V ABI for x86-64, A.2.1: the kernel destroys rcx and r11."""
    kind = ir.FunctionType(WORD, [WORD] * (1 + len(codes)))
    constraints = ",".join(("={rax}", "{rax}", *_REGISTERS[: len(codes)], "~{rcx}", "~{r11}", "~{memory}"))
    return build.asm(kind, "syscall", constraints, [number, *codes], True)


def _stop(build: ir.IRBuilder) -> Any:
    build.asm(ir.FunctionType(_VOID, []), "1: cli\nhlt\njmp 1b", "~{memory}", [], True)
    return build.unreachable()


WORDS: dict[str, Maker] = {
    "unsigned": Maker(_same, U64),
    "signed": Maker(_same, I64),
    "as_float": Maker(lambda build, value: build.sitofp(value, DOUBLE), F64),
    "as_int": Maker(lambda build, value: build.fptosi(value, WORD), I64, (F64,)),
    "bits": Maker(lambda build, value: build.bitcast(value, WORD), U64, (F64,)),
    "from_bits": Maker(lambda build, value: build.bitcast(value, DOUBLE), F64),
    "swap16": Maker(_swap(16)),
    "swap32": Maker(_swap(32)),
    "leading_zeros": Maker(_leading_zeros),
    "high_product": Maker(_high_product),
    **{word: Maker(_of_double(name), F64, (F64,)) for word, name in _DOUBLE_WORDS.items()},
    "in8": Maker(_in(8, "b")),
    "in32": Maker(_in(32, "l")),
    "out8": Maker(_out(8, "b"), NOTHING),
    "out16": Maker(_out(16, "w"), NOTHING),
    "out32": Maker(_out(32, "l"), NOTHING),
    "counter": Maker(_counter),
    "read_msr": Maker(_read_msr),
    "write_msr": Maker(_write_msr, NOTHING),
    "cpuid": Maker(_cpuid),
    "extended_state": Maker(_extended_state),
    "page_fault_address": Maker(
        lambda build: build.asm(ir.FunctionType(WORD, []), "movq %cr2, $0", "=r", [], True), U64
    ),
    "load_page_tables": Maker(_plain("movq $0, %cr3", arguments="r"), NOTHING),
    "fs": Maker(_own("fs")),
    "gs": Maker(_own("gs")),
    "call": Maker(_call),
    "repeat_move": Maker(
        _plain(
            "pushq %rdi\npushq %rsi\npushq %rcx\ncld\nrep movsb\npopq %rcx\npopq %rsi\npopq %rdi",
            arguments="{rdi},{rsi},{rcx}",
        ),
        NOTHING,
    ),
    "repeat_store": Maker(
        _plain("pushq %rdi\npushq %rcx\ncld\nrep stosb\npopq %rcx\npopq %rdi", arguments="{rdi},{rax},{rcx}"),
        NOTHING,
    ),
    "barrier": Maker(_plain("mfence"), NOTHING),
    "pause": Maker(_plain("pause"), NOTHING),
    "mask_interrupts": Maker(_plain("cli"), NOTHING),
    "allow_interrupts": Maker(_plain("sti"), NOTHING),
    "wait_for_interrupt": Maker(_plain("sti\nhlt"), NOTHING),
    "monitor": Maker(
        lambda build, place: build.asm(
            ir.FunctionType(_VOID, [WORD, WORD, WORD]),
            "monitor",
            "{rax},{rcx},{rdx},~{memory}",
            [place, ir.Constant(WORD, 0), ir.Constant(WORD, 0)],
            True,
        ),
        NOTHING,
    ),
    "mwait": Maker(
        lambda build: build.asm(
            ir.FunctionType(_VOID, [WORD, WORD]),
            "sti\nmwait",
            "{rax},{rcx},~{memory}",
            [ir.Constant(WORD, 0), ir.Constant(WORD, 0)],
            True,
        ),
        NOTHING,
    ),
    "stop": Maker(_stop, NOTHING),
    "system_call": Maker(_system_call, I64),
}

__all__ = ["BOOL", "WORDS", "Maker", "device_read", "device_write"]
