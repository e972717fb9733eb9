"""Options that the commands for prediction share."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from bitemporal.inference.options import Augmentation

if TYPE_CHECKING:
    from bitemporal.inference import Detector


@dataclass(frozen=True, kw_only=True)
class PredictionOptions:
    """Prediction.

    Attributes:
        device: auto (CUDA, else MPS, else CPU), or the name of a device.
        tta: Test-time augmentation: average the predictions for mirrored images (flips), turned images (rotations), or
            both (flips-rotations).
        scales: Scales at which images are predicted, as in 0.75,1,1.25. The predictions are averaged.
    """

    device: str = "auto"
    tta: Augmentation | None = None
    scales: tuple[float, ...] = (1.0,)


@dataclass(frozen=True, kw_only=True)
class DetectorOptions(PredictionOptions):
    """Detector.

    Attributes:
        bundle: Bundle folder of a network or of Origin-Partition, or owner/name on the Hugging Face hub. The
            probabilities of several bundles are averaged.
    """

    bundle: list[str]

    def load(self) -> "Detector":
        """Load the detector."""
        from bitemporal.inference import compose

        return compose(self.bundle, self.device, self.tta, self.scales)
