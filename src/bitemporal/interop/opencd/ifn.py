"""IFN: the reference's encoder is torchvision's VGG-16."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules

# where the stages begin in VGG's list of layers; the layers keep their number
_STAGES = ((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))


def _stage(ours: int, units: int) -> Rules:
    """Rules of stage ``ours`` of the decoder, which the reference counts from 1; it has so many units."""
    theirs = ours + 1
    decoder = f"decoder.{ours}"
    return (
        (rf"backbone\.ca{theirs}\.fc1\.seq\.0\.(weight)", rf"{decoder}.channel_attention.squeeze.0.\1"),
        (rf"backbone\.ca{theirs}\.fc2\.seq\.0\.(weight)", rf"{decoder}.channel_attention.expand.\1"),
        *(
            (rf"backbone\.o{theirs}_conv{unit + 1}\.([012])\.{NORM}", rf"{decoder}.units.{unit}.\1.\2")
            for unit in range(units)
        ),
        (rf"backbone\.o{theirs}_conv{units + 1}\.seq\.0\.(\w+)", rf"heads.{ours}.\1"),
        (rf"backbone\.sa{theirs}\.conv\.seq\.1\.(weight)", rf"{decoder}.spatial_attention.conv.\1"),
        (rf"backbone\.bn_sa{theirs}\.{NORM}", rf"{decoder}.norm.\1"),
        (rf"backbone\.trans_conv{theirs}\.(\w+)", rf"decoder.{theirs}.up.\1"),
    )


_IFN: Rules = (
    *(
        (rf"backbone\.encoder2\.features\.{layer}\.(\w+)", rf"encoder.{stage}.{layer}.\1")
        for stage, layers in enumerate(_STAGES)
        for layer in layers
    ),
    *_stage(0, units=2),
    *(rule for stage in range(1, 5) for rule in _stage(stage, units=3)),
)

# encoder1 and encoder2 are one module: of its two copies in a checkpoint the second one is left after loading
_UNUSED = (r"backbone\.encoder1\..+", r"backbone\.(ca1|bn_ca1|bn_ca2)\..+")

FAMILIES = {"ifn": Family(_IFN, unused=_UNUSED)}
