"""Checkpoints of Open-CD and MTKD-CD."""

from bitemporal.interop.opencd.checkpoint import import_network, read_checkpoint
from bitemporal.interop.opencd.conversion import convert, unused_entries

__all__ = ["convert", "import_network", "read_checkpoint", "unused_entries"]
