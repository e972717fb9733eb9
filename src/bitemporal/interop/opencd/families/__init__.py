"""The renaming tables of all networks, one family a file."""

import importlib
import pkgutil

from bitemporal.interop.opencd.rules import Rules

FAMILIES: dict[str, Rules] = {}
"""The renaming table of each network, by its registered name; every file of this folder has those of its family."""

for _module in pkgutil.iter_modules(__path__):
    FAMILIES |= importlib.import_module(f"{__name__}.{_module.name}").FAMILIES
