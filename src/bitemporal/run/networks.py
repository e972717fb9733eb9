"""The networks of a run, which may be the user's own."""

from collections.abc import Iterable

from bitemporal.errors import BundleError, UnknownModelError
from bitemporal.models.registry import model_card
from bitemporal.own_networks import needs_module
from bitemporal.reading import read_json, reading
from bitemporal.run.folder import RunFolder


def check_registered(names: Iterable[str], runs: Iterable[RunFolder]) -> None:
    """Refuse networks that nothing registers, and name the module that does, where a bundle of a run recorded it.

    Args:
        names: Names of networks.
        runs: Folders of runs, which need not exist.

    Raises:
        UnknownModelError: When there is no such network.
    """
    folders = list(runs)
    for name in names:
        try:
            model_card(name)
        except UnknownModelError as error:
            for run in folders:
                if module := recorded_module(name, run):
                    raise UnknownModelError(f"{run.path}: {needs_module(name, module)}") from error
            raise


def recorded_module(model: object, run: RunFolder) -> str:
    """What ``--import`` takes for the module of a network, as a bundle of a run says; empty where none does.

    Raises:
        BundleError: When the description of a bundle is damaged.
    """
    for stage in run.finished_stages():
        path = run.stage(stage).bundle / "bundle.json"
        with reading(path, BundleError, "expected the description of a bundle; train the stage again"):
            description = dict(read_json(path))
        if description.get("model") == model and description.get("module"):
            return str(description["module"])
    return ""
