"""HANet: query, key and value of an axis are one linear projection here."""

from bitemporal.interop.opencd.rules import Rules, under

_HANET: Rules = {
    "backbone.conv0_0": "encoder.stem",
    "backbone.conv6": "reduce",
    "backbone.c*_conv": None,
    "decode_head.conv_seg": "head.1",
}
for index, cell in enumerate(("conv0", "conv2", "conv4", "conv5")):
    _HANET |= under(f"backbone.{cell}", f"encoder.cells.{index}", {"conv*": "conv*", "bn*": "norm*"})
for level in range(4):
    theirs, ours = level + 1, f"levels.{level}"
    _HANET |= {f"backbone.conv6_{theirs}_{i + 1}": f"{ours}.dilated.{i}" for i in range(4)}
    _HANET |= {f"backbone.conv{theirs}_1": f"{ours}.join", f"backbone.cam_attention_{theirs}.attn": f"{ours}.channels"}
    for axis, axis_here in (("row", "rows"), ("col", "columns")):
        projections = dict.fromkeys(("query_conv", "key_conv", "value_conv"), "projection")
        _HANET |= under(f"backbone.{axis}_attention_{theirs}", f"{ours}.{axis_here}", projections | {"gamma": "gamma"})

FAMILIES = {"hanet": _HANET}
