"""Layer 1: frozen values (template, workload, closure, bundle, guest states, errors). No I/O."""
