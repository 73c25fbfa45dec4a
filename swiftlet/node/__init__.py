"""Layer 5: the node daemon: desired against actual, adoption, network, events. Never forks a guest itself."""
