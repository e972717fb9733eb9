"""``bitemporal import``."""

from pathlib import Path
from typing import Literal

from rich.console import Console

from bitemporal import __version__
from bitemporal.cli.outcome import Outcome
from bitemporal.outputs import Output, check_outputs, locked
from bitemporal.remedies import as_typed, free_name

Part = Literal["student", "small", "medium", "large"]
"""Networks of a distillation checkpoint, as `interop` has them, which is imported with torch only."""

_SHOWN = 10
"""So many names are shown at most."""


def import_checkpoint(
    checkpoint: str, /, *, model: str, output: str, part: Part = "student", overwrite: bool = False
) -> Outcome:
    """Turn a checkpoint of Open-CD, MTKD-CD, SNUNet or bitemporal itself into a bundle.

    No code from the file is run, even where a whole network was pickled. The state dict is found under its usual names
    (state_dict, model_G_state_dict, model, ...), without the prefixes of DataParallel, Lightning and moving averages.
    Networks of BIT_CD and ChangeFormer, which differ from those here, are recognised and refused.

    Every entry must be used; entries that the reference itself never uses are left out and listed. A
    checkpoint of multi-teacher distillation holds four networks; --part chooses one.

    Args:
        checkpoint: File of torch.save (.pth, .pt, .ckpt), or .safetensors.
        model: Name of the same network here; `bitemporal models` lists them.
        output: Bundle folder to write; an existing bundle is replaced; a folder with other files is refused.
        part: Network to take from a distillation checkpoint: student, or the small, medium or large teacher.
        overwrite: Also replace a folder that is not a bundle, if all its files are named as in a bundle.
    """
    from bitemporal.inference.bundle import BUNDLE, save_bundle
    from bitemporal.interop.opencd import import_network

    folder = Path(output)
    remedy = f"choose another folder, --output {as_typed(free_name(output))}"
    with locked(folder):
        check_outputs([Output("output", folder, BUNDLE, remedy)], [checkpoint], overwrite)
        imported = import_network(checkpoint, model, part)
        metadata = {"imported": imported.provenance, "bitemporal": __version__}
        save_bundle(folder, imported.model, metadata, overwrite=overwrite)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    console.print(f"{imported.entries} entries of {checkpoint} ({part}) are {model}; bundle: {output}")
    if imported.unused:
        console.print(f"left out, {len(imported.unused)} entries that the reference holds and never uses:")
        for key in imported.unused[:_SHOWN]:
            console.print(f"  {key}")
        if len(imported.unused) > _SHOWN:
            console.print(f"  ... and {len(imported.unused) - _SHOWN} more, all of them in bundle.json")
    for other, count in imported.other_parts.items():
        console.print(f"left out, {count} entries of another network in the file: --part {other}")
    if imported.checkpoint.others:
        more = len(imported.checkpoint.others) - _SHOWN
        listed = [*imported.checkpoint.others[:_SHOWN], *([f"{more} more"] if more > 0 else [])]
        console.print(f"left out, not weights: {', '.join(listed)}")
    if imported.checkpoint.averaged:
        console.print("note: these weights are moving averages (EMA); the file holds no others under the usual names")
    if "ema_state_dict" in imported.checkpoint.others:
        console.print(
            "note: these weights are the moving averages; mmengine keeps the unaveraged ones in ema_state_dict"
        )
    return Outcome(
        {
            "bundle": folder,
            "entries": imported.entries,
            "unused": list(imported.unused),
            "other_parts": dict(imported.other_parts),
            "others": list(imported.checkpoint.others),
        }
    )
