"""How much more, or less, change a teacher finds than there is."""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from bitemporal.method.loss import valid_weights

_LIMIT, _BINS = 20.0, 4000


class Calibration:
    """Finds the constant that a network's log-odds of change lack.

    A network that learned from pairs with little change finds little in any pair, and one that learned from pairs with
    much finds much: their priors differ. A constant brings them together, and leaves which pixel is more likely changed
    than which other one as it is (Saerens et al., Adjusting the outputs of a classifier to new a priori probabilities,
    Neural Computation 2002).
    """

    def __init__(self) -> None:
        """Nothing is seen yet."""
        self.pixels = np.zeros(_BINS)
        self.changed = 0.0

    def add(self, log_odds: Tensor, label: Tensor) -> None:
        """See what the network says of some pairs.

        Args:
            log_odds: N x 1 x h x w, at any stride.
            label: Decoded masks, N x H x W; ignored pixels do not count.
        """
        size = log_odds.shape[-2:]
        valid = valid_weights(label, size)
        changed = F.interpolate((label == 1).float()[:, None], size=tuple(size), mode="area")
        values = log_odds.float().clamp(-_LIMIT, _LIMIT)
        odds, weights = (x.flatten().cpu().numpy() for x in (values, valid))
        self.pixels += np.histogram(odds, _BINS, (-_LIMIT, _LIMIT), weights=weights)[0]
        self.changed += float(changed.double().sum())

    def shift(self) -> float:
        """What is to be added to the log-odds for the mean probability to be the share of changed pixels.

        Returns:
            The shift, within 20 either way; 0 where nothing was changed, or nothing unchanged: a few pairs of one kind
            do not say how often the other one occurs.
        """
        if not 0 < self.changed < self.pixels.sum():
            return 0.0
        centres = torch.linspace(-_LIMIT, _LIMIT, 2 * _BINS + 1, dtype=torch.float64)[1::2]
        pixels = torch.from_numpy(self.pixels)
        low, high = -_LIMIT, _LIMIT
        while high - low > 1e-4:
            middle = (low + high) / 2
            too_much = float(pixels @ torch.sigmoid(centres + middle)) > self.changed
            low, high = (low, middle) if too_much else (middle, high)
        return (low + high) / 2
