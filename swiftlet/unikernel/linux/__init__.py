"""The same tasks as a program of Linux: a service over UDP that runs each task of a call as a thread or as a process.

In the dialect of `metal`, with no C library: `system` has the system calls that it needs.
"""
