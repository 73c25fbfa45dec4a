"""swiftlet: a piece of code with exactly the files it needs, as a container, a microVM or a unikernel."""

__version__ = "0.1.0"
