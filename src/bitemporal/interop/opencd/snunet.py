"""SNUNet with both widths."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules


def _block(theirs: str, ours: str) -> Rules:
    return (
        (rf"{theirs}\.(conv[12])\.(\w+)", rf"{ours}.\1.\2"),
        (rf"{theirs}\.bn([12])\.{NORM}", rf"{ours}.norm\1.\2"),
    )


# node (level, column) of the reference; column 0 is the encoder
_NODES = [(level, column) for column in range(1, 5) for level in range(5 - column)]

_SNUNET: Rules = (
    *(rule for level in range(4) for rule in _block(rf"backbone\.conv{level}_0", f"encoder.levels.{level}")),
    *_block(r"backbone\.conv4_0", "deepest"),
    *(
        rule
        for level, column in _NODES
        for rule in (
            *_block(rf"backbone\.conv{level}_{column}", f"columns.{column - 1}.nodes.{level}.block"),
            (rf"backbone\.Up{level + 1}_{column - 1}\.up\.(\w+)", rf"columns.{column - 1}.nodes.{level}.up.\1"),
        )
    ),
    (r"backbone\.ca\.fc1\.(weight)", r"attention.across.squeeze.0.\1"),
    (r"backbone\.ca\.fc2\.(weight)", r"attention.across.expand.\1"),
    (r"backbone\.ca1\.fc1\.(weight)", r"attention.within.squeeze.0.\1"),
    (r"backbone\.ca1\.fc2\.(weight)", r"attention.within.expand.\1"),
    (r"decode_head\.conv_seg\.(\w+)", r"head.1.\1"),
)

FAMILIES = {"snunet_c16": Family(_SNUNET), "snunet_c32": Family(_SNUNET)}
