"""Models and what trains them: codec, target, drafts."""
