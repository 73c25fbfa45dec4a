"""Layer 2: content-addressed files (put, link, verify, collect) and the names that keep them."""
