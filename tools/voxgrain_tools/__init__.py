"""Training and export pipeline of voxgrain's voices."""
