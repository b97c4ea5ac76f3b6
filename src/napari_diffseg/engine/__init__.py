"""Learning from painted slices and predicting the others, as generators without state.

:func:`finetune` yields progress and at its end a segmenter; :func:`predict` yields slices.
Registration, label propagation, random walker and metrics are its tools.
"""
