"""FC-EF, FC-Siam-conc and FC-Siam-diff."""

from bitemporal.interop.opencd.rules import Rules

_FULLY_CONVOLUTIONAL: Rules = {
    "backbone.conv11d": "decoder.stages.3.1",  # the last convolution has no normalisation
    "decode_head.conv_seg": "head.1",
}
# convAB is convolution B of stage A, from 1; in the decoder (suffix d) the convolutions count down
for stage, convolutions in enumerate((2, 2, 3, 3), start=1):
    _FULLY_CONVOLUTIONAL[f"backbone.upconv{stage}"] = f"decoder.up.{4 - stage}"
    for k in range(convolutions):
        for theirs, ours in (
            (f"{stage}{k + 1}", f"encoder.stages.{stage - 1}.{k}"),
            (f"{stage}{convolutions - k}d", f"decoder.stages.{4 - stage}.{k}"),
        ):
            _FULLY_CONVOLUTIONAL.setdefault(f"backbone.conv{theirs}", f"{ours}.0")
            _FULLY_CONVOLUTIONAL[f"backbone.bn{theirs}"] = f"{ours}.1"

FAMILIES = dict.fromkeys(("fc_ef", "fc_siam_conc", "fc_siam_diff"), _FULLY_CONVOLUTIONAL)
