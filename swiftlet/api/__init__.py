"""Layer 7: the varlink wire between command and daemon. `client` imports the standard library and channel only."""
