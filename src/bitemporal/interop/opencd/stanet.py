"""STANet with every attention."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules, conv_module, resnet

_FEATURES: Rules = (
    *resnet(r"backbone\.", "features.encoder"),
    (r"decode_head\.fpn_convs\.(\d)\.conv\.(weight)", r"features.fusion.project.\1.0.\2"),
    (rf"decode_head\.fpn_convs\.(\d)\.bn\.{NORM}", r"features.fusion.project.\1.1.\2"),
    *conv_module(r"decode_head\.fpn_bottleneck\.0", "features.fusion.join.0"),
    *conv_module(r"decode_head\.fpn_bottleneck\.2", "features.fusion.join.2"),
)
_BAM: Rules = (
    (r"decode_head\.netA\.Self_Att\.(query|key)_conv\.(\w+)", r"attention.attention.\1.0.\2"),
    (r"decode_head\.netA\.Self_Att\.value_conv\.(\w+)", r"attention.attention.value.\1"),
)
_PAM: Rules = (
    (r"decode_head\.netA\.Self_Att\.stages\.(\d)\.f_(query|key)\.([01])\.(\w+)", r"attention.scales.\1.\2.\3.\4"),
    (r"decode_head\.netA\.Self_Att\.stages\.(\d)\.f_value\.(\w+)", r"attention.scales.\1.value.\2"),
    (r"decode_head\.netA\.Self_Att\.conv_bn\.0\.(weight)", r"attention.join.\1"),
)

FAMILIES = {
    "stanet_base": Family(_FEATURES),
    "stanet_bam": Family((*_FEATURES, *_BAM), unused=(r"decode_head\.netA\.Self_Att\.gamma",)),
    "stanet_pam": Family((*_FEATURES, *_PAM)),
}
