"""Files to volumes and masks, and exactly back.

Every format is read into one canonical orientation and written on the grid of its source. Geometry
is never guessed: what has none is refused. Nothing here knows of networks or of napari.
"""
