"""Memory that glibc keeps: large blocks come back without new pages."""

from __future__ import annotations

import subprocess
import sys
import textwrap

import pytest

_SCRIPT = """
    import ctypes, resource
    from diffseg_training.memory import keep_freed_memory
    libc = ctypes.CDLL(None)
    libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
    libc.free.argtypes = [ctypes.c_void_p]
    def touched():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        for _ in range(8):
            block = libc.malloc(64 << 20)
            ctypes.memset(block, 1, 64 << 20)
            libc.free(block)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    usual = touched()
    assert keep_freed_memory()
    print(usual, touched())
"""


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc")
def test_freed_blocks_are_used_again() -> None:
    ran = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_SCRIPT)], capture_output=True, text=True, check=True
    )
    usual, kept = map(int, ran.stdout.split())
    # The pages of one block, against those of eight.
    assert 0 < kept < usual / 4
