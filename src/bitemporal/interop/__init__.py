"""Checkpoints of other projects, as state dicts of this one."""
