"""TensorFlow in a process with others."""

import os
import subprocess
import sys

import pytest


@pytest.mark.tensorflow
def test_triton_is_loaded_before_tensorflow_where_there_is_one(tmp_path):
    """Both bring an LLVM, and the other order ends the process."""
    (tmp_path / "triton.py").write_text(
        "import sys\nprint('tensorflow' in sys.modules, flush=True)\n", encoding="utf-8"
    )
    program = (
        "from nextbuy.training.tensorflow_engine import import_tensorflow\n"
        "print(import_tensorflow()[0].__name__)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | {"PYTHONPATH": str(tmp_path)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["False", "tensorflow"]
