"""Checkpoints of Open-CD and MTKD-CD."""

from bitemporal.interop.opencd.conversion import convert, unused_entries

__all__ = ["convert", "unused_entries"]
