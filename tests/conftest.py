"""Settings of the whole suite."""

import os

# On arrays as small as the tests' a second thread brings nothing, and on a busy machine OpenMP's
# threads wait for each other: 30 training steps took 8 s with one thread and 164 s with two.
# It must stand in the environment before torch is imported; processes that tests start inherit it.
os.environ.setdefault("OMP_NUM_THREADS", "1")
