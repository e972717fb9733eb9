"""The prior of a teacher: how much more, or less, change it finds than there is."""

import numpy as np
import torch.nn.functional as F
from scipy.optimize import brentq
from scipy.special import expit
from torch import Tensor

from bitemporal.imagery.masks import IGNORE

_LIMIT, _BINS = 20.0, 4000
_CENTRES = np.linspace(-_LIMIT, _LIMIT, 2 * _BINS + 1)[1::2]


class Calibration:
    """Finds the constant that a network's log-odds of change lack.

    A network that learned from pairs with little change finds little in any pair, and one that learned from pairs with
    much change finds much: their priors differ. A constant corrects the prior, and leaves the order of the pixels as it
    is (Saerens et al., Adjusting the outputs of a classifier to new a priori probabilities, Neural Computation 2002).
    The JL1-CD paper has no such step: its teachers see pairs of their own part only (paper, section on MTKD).
    """

    def __init__(self) -> None:
        """Start with no pixels."""
        self.pixels = np.zeros(_BINS)  # histogram of the log-odds
        self.changed = 0.0

    def add(self, log_odds: Tensor, label: Tensor) -> None:
        """Count what the network says about some pairs.

        Args:
            log_odds: N x 1 x h x w, at any stride.
            label: Decoded masks, N x H x W; ignored pixels do not count.
        """
        size = tuple(log_odds.shape[-2:])
        valid, changed = (
            F.interpolate(pixels.float()[:, None], size=size, mode="area") for pixels in (label != IGNORE, label == 1)
        )
        values = log_odds.float().clamp(-_LIMIT, _LIMIT)
        odds, weights = (x.flatten().cpu().numpy() for x in (values, valid))
        self.pixels += np.histogram(odds, _BINS, (-_LIMIT, _LIMIT), weights=weights)[0]
        self.changed += float(changed.double().sum())

    def shift(self) -> float:
        """The constant to add to the log-odds, so that the mean probability is the share of changed pixels.

        Returns:
            The shift, from -20 to 20; 0 where nothing was changed, or everything: a few pairs of one kind do not tell
            how often the other kind occurs.
        """
        if not 0 < self.changed < self.pixels.sum():
            return 0.0

        def excess(shift: float) -> float:
            return float(self.pixels @ expit(_CENTRES + shift)) - self.changed

        if excess(-_LIMIT) >= 0:
            return -_LIMIT
        return _LIMIT if excess(_LIMIT) <= 0 else float(brentq(excess, -_LIMIT, _LIMIT))
