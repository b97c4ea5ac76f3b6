"""Read weights in the layout of guided-diffusion's ``UNetModel``, as the papers' code stores them.

The two networks are the same; only the names differ. Ours keeps guided-diffusion's older order
of queries, keys and values, ``[heads, 3, channels]``, so nothing is permuted.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Callable
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from diffseg_training.settings import PretrainError
from napari_diffseg.network.unet import UNet, UNetConfig

_LAYERS = {
    "in_layers.0": "norm1",
    "in_layers.2": "conv1",
    "emb_layers.1": "scale_shift",
    "out_layers.0": "norm2",
    "out_layers.3": "conv2",
    "skip_connection": "skip",
    "proj_out": "out",
}
_PLACES: tuple[tuple[str, Callable[[re.Match[str]], str]], ...] = (
    (r"input_blocks\.0\.0\.(\w+)", lambda m: f"stem.{m[1]}"),
    (r"input_blocks\.(\d+)\.(.+)", lambda m: f"encoder.{int(m[1]) - 1}.{m[2]}"),
    (r"middle_block\.(.+)", lambda m: f"middle.{m[1]}"),
    (r"output_blocks\.(.+)", lambda m: f"decoder.{m[1]}"),
)


def our_name(theirs: str) -> str:
    """Name in :class:`UNet` of a tensor of guided-diffusion's ``UNetModel``.

    ``input_blocks.0`` is the stem, the other input blocks are the encoder's stages; the layers of
    a residual block, an attention block and a resampling layer have names of their own.
    """
    name = theirs
    for pattern, ours in _PLACES:
        if match := re.fullmatch(pattern, theirs):
            name = ours(match)
            break
    for layer, ours_layer in _LAYERS.items():
        name = re.sub(rf"(?<=\.){re.escape(layer)}(?=\.)", ours_layer, name)
    # Resampling by convolution: Downsample.op and Upsample.conv.
    return re.sub(r"\.(op|conv)\.(weight|bias)$", r".\2", name)


def convert(tensors: dict[str, Tensor], config: UNetConfig) -> UNet:
    """Build our network from a guided-diffusion-layout state dict.

    Parameters
    ----------
    tensors
        Its tensors. Of a network that also predicts the variance, the noise half is taken.
    config
        Shape of the network. ``resampling = "conditioned"`` is its ``resblock_updown=True``,
        ``"conv"`` its ``False``.

    Raises
    ------
    PretrainError
        If the tensors are not those of such a network.
    """
    net = UNet(config)
    wanted = net.state_dict()
    found: dict[str, Tensor] = {}
    for theirs, tensor in tensors.items():
        name = our_name(theirs)
        if name not in wanted:
            raise PretrainError(f"{theirs}: the network of the configuration has no such tensor")
        shape = wanted[name].shape
        if tensor.ndim == 3 and len(shape) == 4:  # attention's projections are 1-D convolutions
            tensor = tensor.unsqueeze(-1)
        if name.startswith("out.2.") and len(tensor) == 2 * config.channels:
            tensor = tensor[: config.channels]
        if tensor.shape != shape:
            raise PretrainError(
                f"{theirs}: has shape {tuple(tensor.shape)}, the configuration's network "
                f"{tuple(shape)}"
            )
        found[name] = tensor.float()
    missing = sorted(set(wanted) - set(found))
    if missing:
        raise PretrainError(f"{len(missing)} tensors are missing, the first is {missing[0]}")
    net.load_state_dict(found)
    return net


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Read tensors from ``.safetensors``, or from a torch file without running code from it.

    Raises
    ------
    PretrainError
        If the file holds anything but tensors by name.
    """
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        tensors = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError) as error:
        first = str(error).splitlines()[0]
        raise PretrainError(f"{path}: not a file of tensors alone ({first})") from error
    if not isinstance(tensors, dict) or not all(isinstance(t, Tensor) for t in tensors.values()):
        raise PretrainError(f"{path}: holds more than tensors by name; save its state dict")
    return tensors
