"""FC-EF, FC-Siam-conc and FC-Siam-diff."""

from bitemporal.interop.opencd.rules import NORM, Family, Rules

# convAB is convolution B of stage A, from 1; the decoder's (suffix d) count down
_FULLY_CONVOLUTIONAL: Rules = (
    *(
        rule
        for stage, convolutions in enumerate((2, 2, 3, 3), start=1)
        for k in range(convolutions)
        for theirs, ours in (
            (f"{stage}{k + 1}", f"encoder.stages.{stage - 1}.{k}"),
            (f"{stage}{convolutions - k}d", f"decoder.stages.{4 - stage}.{k}"),
        )
        if theirs != "11d"
        for rule in (
            (rf"backbone\.conv{theirs}\.(\w+)", rf"{ours}.0.\1"),
            (rf"backbone\.bn{theirs}\.{NORM}", rf"{ours}.1.\1"),
        )
    ),
    (r"backbone\.conv11d\.(\w+)", r"decoder.stages.3.1.\1"),  # the last one stands alone
    *((rf"backbone\.upconv{stage}\.(\w+)", rf"decoder.up.{4 - stage}.\1") for stage in range(1, 5)),
    (r"decode_head\.conv_seg\.(\w+)", r"head.1.\1"),
)

FAMILIES = {name: Family(_FULLY_CONVOLUTIONAL) for name in ("fc_ef", "fc_siam_conc", "fc_siam_diff")}
