"""Layer 3: Template + Workload -> Closure, with a reason for every file. Reads packages; never starts a guest."""
