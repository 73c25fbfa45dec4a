"""Layer 3: Closure -> Rootfs. Makes stored files usable (link trees); never copies bytes that the store already has."""
