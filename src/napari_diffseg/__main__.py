"""``python -m napari_diffseg``, the same as the command ``napari-diffseg``."""

import sys

from napari_diffseg.cli import main

sys.exit(main())
