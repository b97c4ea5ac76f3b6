"""The napari window: the only room that knows napari, Qt and magicgui.

:class:`~napari_diffseg.gui.widget.DiffSegWidget` is the dock and loads the panel, whose sections
show one :class:`~napari_diffseg.gui.workspace.Workspace` for each open CT. Nothing imports this
room but napari, through the manifest.
"""
