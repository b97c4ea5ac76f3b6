"""The diffusion U-Net, its pre-trained weights, and the segmentation head on its maps.

A backbone is weights with their card; a segmenter is a backbone at a fixed timestep with a head.
Losses and the choice of the device stand here, too.
"""
