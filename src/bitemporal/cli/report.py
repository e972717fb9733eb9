"""``bitemporal report``."""

import sys
import warnings

from bitemporal.cli.outcome import Outcome


def report(
    run: str,
    /,
    *,
    data: str | None = None,
    no_imagery: bool = False,
    output: str | None = None,
    overwrite: bool = False,
) -> Outcome:
    """Write the results of a run as one HTML file that needs no network.

    Of `bitemporal distill`: verdict, scores with intervals, by CAR part and decile, training curves, routing,
    thresholds, calibration, objects, and a gallery of pairs. Of `bitemporal train`: the training curves, the validation
    that chose the checkpoint, and the same scores if RUN/scores holds them; the report says how to compute them.


    Args:
        run: Run folder.
        data: Folder of the pairs, if it is no longer where the recipe says.
        no_imagery: Leave before and after out, for data whose terms forbid passing imagery on.
        output: HTML file; RUN/report.html by default. An earlier report is replaced; any other file is refused.
        overwrite: Also replace a file that is not an earlier report.
    """
    from bitemporal.report import write_report

    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("ignore")
        warnings.simplefilter("always", UserWarning)
        written = write_report(run, output, data, imagery=not no_imagery, overwrite=overwrite)
    for warning in said:
        print(warning.message, file=sys.stderr)
    print(written)
    return Outcome({"report": written, "warnings": [str(warning.message) for warning in said]})
