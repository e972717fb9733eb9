"""Every error a user can cause.

Each text names the file or field, what was found, what was expected, and the remedy.
"""


class BitemporalError(Exception):
    """Base of all errors that a user of this package can cause and correct."""


class DataError(BitemporalError):
    """Pairs on disk are not what they should be: missing partners, unequal sizes, unreadable files."""


class LabelError(DataError):
    """The values of a change mask cannot be decoded, unless an option says what they mean."""


class PartitionError(BitemporalError):
    """A CAR partition is ill-defined, or a partition file does not fit the pairs."""


class OptionError(BitemporalError):
    """An argument of a function, or an option of a command, has a value that cannot be used."""


class RecipeError(OptionError):
    """A field of a recipe has a value that cannot be used."""


class OutputError(OptionError):
    """A file or folder must not, or cannot, be written where it was asked for."""


class DeviceError(OptionError):
    """A device, or a number of devices, is unavailable on this machine."""


class UnknownModelError(BitemporalError):
    """No model of that name is registered."""


class InputSizeError(BitemporalError):
    """A network cannot take an input of that size."""


class WeightsError(BitemporalError):
    """Pretrained or imported weights are unavailable, unreadable, or do not fit the network."""


class BundleError(BitemporalError):
    """A bundle is incomplete, damaged, or of another kind than asked for."""


class DownloadError(BitemporalError):
    """A data set could not be fetched, verified or unpacked."""


_EXTRAS = {
    **dict.fromkeys(
        ("affine", "geopandas", "pandas", "pyarrow", "pyogrio", "pyproj", "rasterio", "shapely", "skimage"), "geo"
    ),
    "ray": "cluster",
    "tensorboard": "track",
}
"""Packages of the extras, by the names that they are imported by -> extra."""


class MissingExtraError(BitemporalError):
    """An optional dependency is needed; the text names the extra that installs it."""

    @classmethod
    def of(cls, error: ImportError, what: str = "this") -> "MissingExtraError | None":
        """The error for a package that is not installed; ``None`` for one that belongs to no extra.

        Args:
            error: What importing it has raised.
            what: What needs the package.
        """
        package = (error.name or "").partition(".")[0]
        if package not in _EXTRAS:
            return None
        extra = _EXTRAS[package]
        return cls(
            f"{what} needs {package}, which is not installed; install it with `pip install 'bitemporal[{extra}]'`"
        )
