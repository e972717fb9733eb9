"""SNUNet with both widths."""

from bitemporal.interop.opencd.rules import Rules, under

_SNUNET: Rules = {
    "backbone.ca.fc1": "attention.across.squeeze.0",
    "backbone.ca.fc2": "attention.across.expand",
    "backbone.ca1.fc1": "attention.within.squeeze.0",
    "backbone.ca1.fc2": "attention.within.expand",
    "decode_head.conv_seg": "head.1",
}
# node (level, column) of the reference; column 0 is the encoder
for column in range(5):
    for level in range(5 - column):
        node = f"columns.{column - 1}.nodes.{level}"
        block = f"{node}.block" if column else f"encoder.levels.{level}" if level < 4 else "deepest"
        _SNUNET |= under(f"backbone.conv{level}_{column}", block, {"conv*": "conv*", "bn*": "norm*"})
        _SNUNET[f"backbone.Up{level + 1}_{column - 1}.up"] = f"{node}.up"

FAMILIES = {"snunet_c16": _SNUNET, "snunet_c32": _SNUNET}
