"""Find what changed between two remote-sensing images."""

__version__ = "0.1.0"
