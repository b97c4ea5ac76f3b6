"""One annotation session: what is painted, what was learnt from it, kept on disk as it changes.

A session has paint, rounds and a trainer, and can be recovered after a crash. It needs no window;
command line and window both drive it.
"""
