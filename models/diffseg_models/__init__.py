"""Backbones that ship with napari-diffseg: weights, cards and their registry."""
