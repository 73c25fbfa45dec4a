"""Measurements: one suite for each paper, each printing JSON and drawing the figures with swiftlet and its peers."""
