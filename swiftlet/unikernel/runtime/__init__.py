"""What compiled tasks call: memory, counts over an arena, mathematics, randomness. In the dialect of `metal`."""
