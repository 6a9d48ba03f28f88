"""How much memory this process holds."""

import os
import resource
import sys
from pathlib import Path
from typing import Final

MIB: Final = 2**20

_PAGES: Final = Path("/proc/self/statm")


def resident_bytes() -> int:
    """Memory that the process holds now; where the system does not tell, the most it ever held."""
    try:
        return int(_PAGES.read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return most if sys.platform == "darwin" else most * 1024
