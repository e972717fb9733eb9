"""Networks of other packages and of the user's own modules: they are imported, and register themselves."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from importlib.metadata import entry_points
from pathlib import Path

from bitemporal.errors import OptionError
from bitemporal.remedies import as_option, as_typed
from bitemporal.texts import harmless

ENTRY_POINTS = "bitemporal.models"
"""Group of entry points under which an installed package names modules that register networks."""

MODULES_VARIABLE = "BITEMPORAL_IMPORT"
"""Environment variable with modules and files, so that the processes which a command starts import them too."""


_files: dict[str, Path] = {}
"""Files that were imported by their paths, by the names of their modules."""


def as_imported(module: str) -> str:
    """What ``--import`` takes for a module that was imported: its name, or its file, where it was given by that."""
    if module not in _files:
        return module
    file, here = _files[module], Path.cwd()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def needs_module(model: str, module: str) -> str:
    """What to say of a network whose module was recorded, and is not imported: recorded code is never run unasked."""
    found = harmless(module, lines=False)
    return (
        f"model {model!r} is not registered; {found} registers it, whose code runs only if you ask for it: "
        f"{as_option('import', found)} (BITEMPORAL_IMPORT={as_typed(found)} in Python)"
    )


def remember_modules(names: Sequence[str]) -> None:
    """Have this process, and those that it starts, import modules when networks are looked up.

    Args:
        names: Names of modules, or paths of files that end in ``.py``. Modules may lie in the current folder.

    Raises:
        OptionError: When one does not exist or cannot be imported.
    """
    if names:
        files = [str(Path(name).absolute()) if name.endswith(".py") else name for name in names]
        _import_all(files)
        os.environ[MODULES_VARIABLE] = os.pathsep.join(dict.fromkeys([*_named(), *files]))


def import_named_modules() -> None:
    """Import what ``BITEMPORAL_IMPORT`` names, once.

    Raises:
        OptionError: When it does not exist or cannot be imported.
    """
    _import_all(_named())


def _import_all(names: Sequence[str]) -> None:
    for name in names:
        try:
            _import(name)
        except OptionError:
            raise
        except Exception as error:  # whatever the user's code raises
            raise OptionError(
                f"import: importing {name} fails ({type(error).__name__}: {error}{_line(error)}); "
                "correct it, or install what it needs (--verbose shows the whole traceback)"
            ) from error


def _line(error: Exception) -> str:
    """File and line that raised an error, unless its text says so, or nothing of the user's did."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    raised_here = last.filename.startswith("<") or last.filename == __file__
    return "" if isinstance(error, SyntaxError) or raised_here else f", {Path(last.filename).name} line {last.lineno}"


def names_modules() -> bool:
    """Whether networks come from elsewhere than this package."""
    return bool(_named() or entry_points(group=ENTRY_POINTS))


def import_entry_points() -> None:
    """Import the modules that installed packages name under ``bitemporal.models``.

    Raises:
        OptionError: When one cannot be imported.
    """
    for entry in entry_points(group=ENTRY_POINTS):
        try:
            entry.load()
        except Exception as error:
            raise OptionError(
                f"entry point {entry.name} = {entry.value} ({ENTRY_POINTS}) cannot be imported "
                f"({type(error).__name__}: {error}); update or remove the package that has it"
            ) from error


def _named() -> list[str]:
    return [name for name in os.environ.get(MODULES_VARIABLE, "").split(os.pathsep) if name]


def _import(name: str) -> None:
    path = Path(name)
    if path.suffix != ".py":
        here = os.getcwd()
        if here not in sys.path:  # last: nothing installed is hidden
            sys.path.append(here)
        if not all(word.isidentifier() for word in name.split(".")):
            raise OptionError(
                f"import: {name} is not a module name; expected one, as in my_networks, or a file that ends in .py, "
                "as in nets/my_networks.py"
            )
        try:
            importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is None or not f"{name}.".startswith(f"{error.name}."):  # one that it imports
                raise
            raise OptionError(
                f"import: there is no module {error.name}; expected one of the current folder ({here}) or of an "
                "installed package, or a file that ends in .py"
            ) from error
        return
    if not path.is_file():
        raise OptionError(f"import: {path.absolute()}: no such file; expected a Python file: correct the path")
    # under its plain name and from its own folder, so that other processes find its classes
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    module = importlib.import_module(path.stem)
    _files[path.stem] = path.absolute()
    if Path(module.__file__ or "").resolve() != path.resolve():
        raise ImportError(f"another module is named {path.stem}; rename the file")
