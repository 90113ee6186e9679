"""Section 4, one iteration: `iteration.py` is the definition, `fused_cpu.py` its fast twin."""
