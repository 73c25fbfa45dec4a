"""Calls and their answers, in the dialect: what the unikernel and the program of Linux have in common.

What they do in their own ways is in `target`.
"""
