"""CGNet: the reference's encoder is torchvision's VGG-16 with batch normalisation."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules, conv_module

# levels of the reference and their place in the encoder here; layers keep the number they have in VGG's list
_LEVELS = {"inc": "0.0", "down1": "0.1", "down2": "1", "down3": "2", "down4": "3"}

_CGNET: Rules = (
    *((rf"backbone\.{theirs}\.(\d+)\.{NORM}", rf"encoder.{ours}.\1.\2") for theirs, ours in _LEVELS.items()),
    *(
        rule
        for level in range(4)
        for rule in conv_module(rf"backbone\.conv_reduce_{level + 1}", f"decoder.fuse.{level}")
    ),
    *conv_module(r"backbone\.decoder\.0", "decoder.prior.0"),
    (r"backbone\.decoder\.1\.(\w+)", r"decoder.prior.1.\1"),
    *(
        rule
        for place, level in enumerate((4, 3, 2))
        for rule in (
            (rf"backbone\.cgm_{level}\.(query|key|value)_conv\.(\w+)", rf"decoder.guides.{place}.\1.\2"),
            (rf"backbone\.cgm_{level}\.(gamma)", rf"decoder.guides.{place}.\1"),
            *conv_module(rf"backbone\.decoder_module{level}", f"decoder.join.{place}"),
        )
    ),
    *conv_module(r"backbone\.decoder_final\.0", "decoder.classify.0"),
    (r"backbone\.decoder_final\.1\.(\w+)", r"decoder.classify.1.\1"),
)

FAMILIES = {"cgnet": Family(_CGNET, unused=(r"backbone\.up_layer[234]\..+",))}
