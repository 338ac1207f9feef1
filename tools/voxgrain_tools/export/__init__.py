"""Checkpoints to the bundles that the runtime reads, and those bundles back."""
