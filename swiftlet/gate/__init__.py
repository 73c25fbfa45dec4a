"""The completeness gate: a program of checks in C (swiftlet/checks), how it is made, and what its answers mean.

Starts no guest and asks no daemon: `cli.guest` runs the program in one and brings its answers here.
"""
