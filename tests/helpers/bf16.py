"""A mark for tests of bf16, which many CPUs only emulate."""

import pytest

from core.inference.precision import has_bf16_instructions

needs_bf16 = pytest.mark.skipif(not has_bf16_instructions(), reason="this CPU has no bf16 instructions")
