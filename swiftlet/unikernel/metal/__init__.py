"""Typed Python as machine code: the dialect in which the unikernel is written. Integers are the processor's.

`words` is what a module of the dialect imports; the words mean something to CPython's type checkers, and nothing runs
there. `program` reads modules, `emit` makes LLVM's code of their functions, `intrinsic` of the processor's own words.

The dialect has functions with annotated arguments, structures, arrays, and the statements of Python that need no heap.
Nothing is hidden in it: no exception, no reference count, no allocation, no check of bounds.
"""
