"""The kinds of values: what they are called, how wide they are, and what LLVM calls them."""

from __future__ import annotations

from typing import Any, NamedTuple

from llvmlite import ir

WORD = ir.IntType(64)
BIT = ir.IntType(1)
DOUBLE = ir.DoubleType()


class Kind(NamedTuple):
    """name: as annotations have it. bits: as stored; a value in a register is 64 wide, unless it is a truth value.

    struct: of a reference. element, length: of an array; length 0 where nobody knows it. parts: of a tuple.
    """

    name: str
    bits: int = 64
    signed: bool = False
    struct: Struct | None = None
    element: Any = None
    length: int = 0
    parts: Any = ()

    @property
    def is_number(self) -> bool:
        """Whether it is an integer."""
        return self.name in NUMBERS or self.name == "literal"

    @property
    def in_register(self) -> ir.Type:
        """LLVM's type of a value."""
        if self.name == "f64":
            return DOUBLE
        if self.parts:
            return ir.LiteralStructType([each.in_register for each in self.parts])
        return BIT if self.name == "bool" else ir.VoidType() if self.name == "None" else WORD

    @property
    def stored(self) -> ir.Type:
        """LLVM's type of a field or an element."""
        return DOUBLE if self.name == "f64" else ir.IntType(8 if self.name == "bool" else self.bits)

    @property
    def size(self) -> int:
        """Bytes of a field or an element."""
        if self.element is not None:
            return int(self.element.size) * self.length
        if self.struct is not None:
            return self.struct.size
        return max(1, self.bits // 8)

    @property
    def alignment(self) -> int:
        """Bytes of which its address is a multiple."""
        if self.element is not None:
            return int(self.element.alignment)
        return self.struct.alignment if self.struct is not None else self.size


class Field(NamedTuple):
    """A field of a structure, at so many bytes from its beginning."""

    kind: Kind
    offset: int


class Struct(NamedTuple):
    """A structure. base: which of the words' structures it derives from."""

    name: str
    base: str
    fields: dict[str, Field]
    size: int
    alignment: int


NUMBERS = {
    "u8": Kind("u8", 8),
    "u16": Kind("u16", 16),
    "u32": Kind("u32", 32),
    "u64": Kind("u64", 64),
    "i32": Kind("i32", 32, True),
    "i64": Kind("i64", 64, True),
}
U64, I64 = NUMBERS["u64"], NUMBERS["i64"]
F64 = Kind("f64")
BOOL = Kind("bool", 1)
NOTHING = Kind("None", 0)
LITERAL = Kind("literal")
"""A number written in the source: it becomes what it meets."""


def widened(kind: Kind) -> Kind:
    """What a stored number is in a register."""
    if kind.name in NUMBERS:
        return I64 if kind.signed else U64
    return kind


def laid_out(name: str, base: str, fields: dict[str, Kind]) -> Struct:
    """A structure of these fields."""
    found: dict[str, Field] = {}
    place, largest = 0, 1
    for field, kind in fields.items():
        aligned = 1 if base == "Packed" else kind.alignment
        place = -(-place // aligned) * aligned
        found[field] = Field(kind, place)
        place += kind.size
        largest = max(largest, aligned)
    return Struct(name, base, found, -(-place // largest) * largest, largest)
