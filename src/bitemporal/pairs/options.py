"""How the files of a folder of pairs are read: the options that commands, recipes and ``PairFolder`` share."""

import dataclasses
import os
from dataclasses import dataclass

from bitemporal.pairs.folder import PairFolder


@dataclass(frozen=True, kw_only=True)
class PairOptions:
    """Pairs and labels.

    Attributes:
        label_values: Values of unchanged, changed and, if any, ignored pixels, as in 1,2 or 0,1,255.
        label_threshold: Label values at or above this are changed, values below unchanged; instead of label_values.
        bands: Bands of the images that become the network's channels, counted from 1, as in 4,3,2; all networks of a
            run take as many channels. By default red, green and blue, or a single grey band for all three.
        image_range: Values that map to 0 and 255, as in 0,4000, or such a pair for each channel, for images of more
            than 8 bits.
    """

    label_values: tuple[int, ...] | None = None
    label_threshold: float | None = None
    bands: tuple[int, ...] | None = None
    image_range: tuple[float, ...] | None = None

    def pair_folder(self, root: str | os.PathLike[str]) -> PairFolder:
        """List a folder of pairs that is read with these options.

        Raises:
            DataError: When the folder has no layout of pairs.
            OptionError: When an option has an unusable value.
        """
        return PairFolder(root, **{field.name: getattr(self, field.name) for field in dataclasses.fields(PairOptions)})
