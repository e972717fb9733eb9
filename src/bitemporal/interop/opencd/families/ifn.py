"""IFN: the reference's encoder is torchvision's VGG-16."""

from bitemporal.interop.opencd.rules import Rules

_IFN: Rules = {
    # encoder1 and encoder2 are one module, which a checkpoint holds twice; loading keeps the second copy
    "backbone.encoder1": None,
    "backbone.ca1": None,
    "backbone.bn_ca1": None,
    "backbone.bn_ca2": None,
}
# where the stages begin in VGG's list of layers; the layers keep their number
for stage, layers in enumerate(((0, 2), (5, 7), (10, 12, 14), (17, 19, 21), (24, 26, 28))):
    _IFN |= {f"backbone.encoder2.features.{layer}": f"encoder.{stage}.{layer}" for layer in layers}
# stages of the decoder, which the reference counts from 1; the first one has no attention to channels
for stage, units in enumerate((2, 3, 3, 3, 3)):
    theirs, ours = stage + 1, f"decoder.{stage}"
    _IFN |= {f"backbone.o{theirs}_conv{unit + 1}": f"{ours}.units.{unit}" for unit in range(units)}
    _IFN |= {
        f"backbone.ca{theirs}.fc1.seq.0": f"{ours}.channel_attention.squeeze.0",
        f"backbone.ca{theirs}.fc2.seq.0": f"{ours}.channel_attention.expand",
        f"backbone.o{theirs}_conv{units + 1}.seq.0": f"heads.{stage}",
        f"backbone.sa{theirs}.conv.seq.1": f"{ours}.spatial_attention.conv",
        f"backbone.bn_sa{theirs}": f"{ours}.norm",
        f"backbone.trans_conv{theirs}": f"decoder.{stage + 1}.up",
    }

FAMILIES = {"ifn": _IFN}
