"""Names of a package that are imported on first use, so that help and small commands need no training framework."""

import importlib
from collections.abc import Callable, Mapping, Sequence

from bitemporal.errors import MissingExtraError


def on_first_use(
    package: str, names: Mapping[str, Sequence[str]]
) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make the ``__getattr__`` and the ``__dir__`` of a package (PEP 562).

    Type checkers and editors see the same names by imports under ``TYPE_CHECKING``.

    Args:
        package: Name of the package.
        names: Public names by their module, which is given below the package.

    Returns:
        Both; the first one raises ``MissingExtraError`` for a name that needs a package that is not installed.
    """
    homes = {name: f"{package}.{module}" for module, own in names.items() for name in own}

    def get(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        try:
            module = importlib.import_module(homes[name])
        except ModuleNotFoundError as error:
            if (missing := MissingExtraError.of(error, f"{package}.{name}")) is None:
                raise
            raise missing from error
        return getattr(module, name)

    return get, lambda: sorted(homes)
