"""Tests run side by side, one thread each: threads that wait for each other's cores crawl."""

import os

from hypothesis import settings

for name in ("OMP_NUM_THREADS", "TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS"):
    os.environ.setdefault(name, "1")

settings.register_profile("nextbuy", deadline=None)  # how long a case takes is the machine's affair
settings.load_profile("nextbuy")
