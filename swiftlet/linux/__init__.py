"""Layer 0: the kernel, thinly. Standard library only; raises OSError with the path; never logs, never decides."""
