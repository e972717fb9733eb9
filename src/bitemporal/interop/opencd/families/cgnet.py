"""CGNet: the reference's encoder is torchvision's VGG-16 with batch normalisation."""

from bitemporal.interop.opencd.rules import Rules, conv_module

_CGNET: Rules = {
    # layers keep the number that they have in VGG's list
    "backbone.inc": "encoder.0.0",
    "backbone.down1": "encoder.0.1",
    "backbone.down2": "encoder.1",
    "backbone.down3": "encoder.2",
    "backbone.down4": "encoder.3",
    **conv_module("backbone.decoder.0", "decoder.prior.0"),
    "backbone.decoder.1": "decoder.prior.1",
    **conv_module("backbone.decoder_final.0", "decoder.classify.0"),
    "backbone.decoder_final.1": "decoder.classify.1",
    "backbone.up_layer*": None,
}
for level in range(4):
    _CGNET |= conv_module(f"backbone.conv_reduce_{level + 1}", f"decoder.fuse.{level}")
for place, level in enumerate((4, 3, 2)):
    _CGNET |= {f"backbone.cgm_{level}.*_conv": f"decoder.guides.{place}.*"}
    _CGNET |= {f"backbone.cgm_{level}.gamma": f"decoder.guides.{place}.gamma"}
    _CGNET |= conv_module(f"backbone.decoder_module{level}", f"decoder.join.{place}")

FAMILIES = {"cgnet": _CGNET}
