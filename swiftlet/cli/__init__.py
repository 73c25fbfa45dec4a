"""Layer 8: the commands, one lazily imported module each. All else goes through `api.client`; only here is printed."""
