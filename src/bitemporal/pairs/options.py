"""How the files of a folder of pairs are read: the options that commands, recipes and ``PairFolder`` share."""

import dataclasses
import itertools
import os
from dataclasses import dataclass

from bitemporal.imagery.label_rules import LabelOptions
from bitemporal.pairs.folder import PairFolder
from bitemporal.remedies import as_option, as_typed


@dataclass(frozen=True, kw_only=True)
class PairOptions(LabelOptions):
    """Pairs.

    Attributes:
        folders: Folders of the images before, the images after and the labels, as in t1,t2,mask, if they are not found
            by name; the same folder twice if it holds both dates.
        suffixes: Suffixes of the stems of both dates and of the labels, as in _pre,_post,_mask, where names differ by
            them.
        splits: CSV with the columns split and stem, or folder of train.txt, val.txt and test.txt, that says which pair
            is in which split; by default the one in the folder of pairs.
        bands: Bands of the images that become the network's channels, counted from 1, as in 4,3,2; all networks of a
            run take as many channels. By default red, green and blue, or a single grey band for all three.
        image_range: Values that map to 0 and 255, as in 0,4000, or such a pair for each channel, for images of more
            than 8 bits.
    """

    folders: tuple[str, ...] | None = None
    suffixes: tuple[str, ...] | None = None
    splits: str | None = None
    bands: tuple[int, ...] | None = None
    image_range: tuple[float, ...] | None = None

    def check_command(self, root: str | os.PathLike[str]) -> str:
        """The command that checks a folder of pairs that is read with these options."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(PairOptions)}
        given = {name: value for name, value in values.items() if value is not None}
        return " ".join(["bitemporal data check", as_typed(root), *itertools.starmap(as_option, given.items())])

    def pair_folder(self, root: str | os.PathLike[str]) -> PairFolder:
        """List a folder of pairs that is read with these options.

        Raises:
            DataError: When the folder has no layout of pairs.
            OptionError: When an option has an unusable value.
        """
        return PairFolder(root, **{field.name: getattr(self, field.name) for field in dataclasses.fields(PairOptions)})
