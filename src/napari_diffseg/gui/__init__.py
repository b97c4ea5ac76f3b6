"""The napari window: the only place that knows napari, Qt and magicgui."""
