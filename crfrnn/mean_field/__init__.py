"""Section 4, one iteration: `iteration.py` is the definition, `fused_cpu.py` and `fused_gpu.py` its fast twins."""
