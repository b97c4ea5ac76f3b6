"""The diffusion U-Net, its pre-trained weights, and the segmentation head on its maps.

A backbone is weights with their card; a segmenter is a backbone at a fixed timestep with a head.
Losses and the choice of the device stand here, too.
"""

from napari_diffseg.network.backbone import Backbone, BackboneError, list_backbones, load_backbone
from napari_diffseg.network.card import ModelCard
from napari_diffseg.network.segmenter import Segmenter, SegmenterConfig, SegmenterError
from napari_diffseg.network.unet import UNet, UNetConfig

__all__ = [
    "Backbone",
    "BackboneError",
    "ModelCard",
    "Segmenter",
    "SegmenterConfig",
    "SegmenterError",
    "UNet",
    "UNetConfig",
    "list_backbones",
    "load_backbone",
]
