"""What is compiled for a card without one: it can be lowered for one, in the forms meant for it."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec

import pytest

from benchmarks.ahead import Config, main
from lens.errors import InputError

# In a process of its own: shapes in place of arrays are what the tests' checks of arrays refuse.
LOWERED = """
import gc
import json
from unittest.mock import patch
import jax
from benchmarks.ahead import Config, programs

gc.disable()
small = Config(
    size="atto", shape=(16, 32, 32), batch=2, patients=40, width=16, columns=20, pairs=(2,)
)
found = {}
with patch("jax.default_backend", return_value="gpu"):
    for made in programs(small, ["float32"]):  # in bfloat16 they are the same
        run = made.run if hasattr(made.run, "lower") else jax.jit(made.run)
        text = jax.export.export(run, platforms=["cuda"])(*made.arguments).mlir_module()
        counts = [text.count(f"stablehlo.{name}") for name in ("convolution", "while")]
        # Arguments that the results may take the place of, in either spelling.
        counts.append(text.count("tf.aliasing_output") + text.count("jax.buffer_donor"))
        found[f"{made.name}, {made.precision}"] = [made.operations, *counts]
print(json.dumps(found))
"""


def test_every_program_can_be_lowered_for_a_card():
    ended = subprocess.run([sys.executable, "-c", LOWERED], capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)
    assert len(found) == 4
    for name, (operations, convolutions, loops, overwritten) in found.items():
        assert operations > 0
        assert (overwritten > 0) == (not name.startswith("embedding"))
        if name.startswith("sweep"):
            assert loops
            continue
        # The forms for a CPU are loops. Blocks of a stage share a function, four in all; a step has
        # its gradients of input and kernel too.
        assert not loops
        assert convolutions >= (12 if name.startswith("training") else 4)


@pytest.mark.skipif(find_spec("jax_cuda12_plugin") is not None, reason="the compiler is there")
def test_without_the_compiler_it_says_so():
    with pytest.raises(InputError, match="compiler for cards is not there"):
        main(Config())
