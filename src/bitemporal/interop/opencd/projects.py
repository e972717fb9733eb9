"""Networks of other projects, recognised by the names and shapes in their state dicts.

BIT_CD (github.com/justchenhao/BIT_CD), ChangeFormer (github.com/wgcban/ChangeFormer, which holds the networks of BIT_CD
as well) and SNUNet (github.com/likyoo/Siam-NestedUNet). SNUNet is the network that Open-CD has; the others are not.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from bitemporal.models import Normalisation


@dataclass(frozen=True)
class Recognised:
    """A network of another project.

    Attributes:
        title: What it is.
        nearest: Registered name of the network here that is like it, if any.
        differs: In what the two differ; empty where they are the same network.
        normalisation: What its images are normalised by, where the networks are the same.
    """

    title: str
    nearest: str = ""
    differs: str = ""
    normalisation: Normalisation | None = None


def recognise(entries: Mapping[str, Tensor]) -> Recognised | None:
    """The network of a state dict, or ``None`` where it is of none of these projects."""
    for known in (_bit_cd, _changeformer, _fully_convolutional, _dtcdscn, _snunet):
        if (network := known(entries)) is not None:
            return network
    return None


def in_opencd_names(entries: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The state dict of SNUNet's own code in the names that Open-CD gives its entries."""
    heads = {f"conv_final.{kind}": f"decode_head.conv_seg.{kind}" for kind in ("weight", "bias")}
    return {heads.get(key, f"backbone.{key}"): value for key, value in entries.items()}


def _shape(entries: Mapping[str, Tensor], key: str) -> tuple[int, ...]:
    return tuple(entries[key].shape) if key in entries else ()


def _bit_cd(entries: Mapping[str, Tensor]) -> Recognised | None:
    if not {"resnet.conv1.weight", "conv_pred.weight"} <= entries.keys():
        return None
    encoder = "the encoder (ResNet-18 with one 7 x 7 convolution first, dilated stages, and nearest-neighbour resizing)"
    if not any(key.startswith(("pos_embedding", "conv_a.", "transformer")) for key in entries):
        return Recognised("BIT_CD's base_resnet18", "bit_r18", f"{encoder} and has no transformer")
    depth = len({key.split(".")[2] for key in entries if key.startswith("transformer_decoder.layers.")})
    name = f"base_transformer_pos_s4{f'_dd{depth}' if depth > 1 else ''}"
    inner = _shape(entries, "transformer_decoder.layers.0.0.fn.fn.to_q.weight")
    if inner and inner[0] == 64:  # 8 heads of 8 channels
        name += "_dedim8"
    return Recognised(f"BIT_CD's {name}", "bit_r18", f"{encoder}, the tokens (GELU, no bias) and the classifier")


def _changeformer(entries: Mapping[str, Tensor]) -> Recognised | None:
    second = _shape(entries, "Tenc_x2.patch_embed2.proj.weight")
    if second:
        version = "V4" if any(key.startswith("Tenc_x2.patch_embed5") for key in entries) else "V5"
        version = "V6" if version == "V5" and second[-1] == 7 else version
    elif any(key.startswith("Tenc.") for key in entries):
        version = "V3" if any(key.startswith("TDec.pix_shuffle") for key in entries) else "V2"
        version = version if any(key.startswith("TDec.") for key in entries) else "V1"
    else:
        return None
    differs = "the encoder, and in the difference modules and transposed convolutions of its decoder"
    return Recognised(f"ChangeFormer's ChangeFormer{version}", "changeformer_mit_b1", differs)


def _fully_convolutional(entries: Mapping[str, Tensor]) -> Recognised | None:
    first, last = _shape(entries, "conv11.weight"), _shape(entries, "conv11d.weight")
    if not (first and last) or "upconv4.weight" not in entries:
        return None
    joined = _shape(entries, "conv43d.weight")
    kind = "fc_siam_conc" if joined and joined[0] > 256 else "fc_siam_diff"
    name, nearest = ("Unet", "fc_ef") if first[1] == 6 else (kind.replace("fc_siam", "SiamUnet"), kind)
    return Recognised(f"ChangeFormer's {name}", nearest, "the last layer, which has no classifier after it")


def _dtcdscn(entries: Mapping[str, Tensor]) -> Recognised | None:
    if not {"firstconv.weight", "encoder1.0.conv1.weight"} <= entries.keys():
        return None
    return Recognised("ChangeFormer's DTCDSCN (CDNet34)")


def _snunet(entries: Mapping[str, Tensor]) -> Recognised | None:
    width = _shape(entries, "conv0_0.conv1.weight")[:1]
    if not width or "Up1_0.up.weight" not in entries or "conv_final.weight" not in entries:
        return None
    nearest = "snunet_c16" if width == (16,) else "snunet_c32"
    if "final1.weight" in entries:
        return Recognised(
            "SNUNet's Siam_NestedUNet_Conc", nearest, "the end: four classifiers where the other has channel attention"
        )
    raw = Normalisation(mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # its code feeds 0..255 as they are
    return Recognised("SNUNet's SNUNet_ECAM", nearest, normalisation=raw)
