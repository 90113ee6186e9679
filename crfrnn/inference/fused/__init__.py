"""The fast twins of `recurrence.py`: T iterations fused, on the CPU and on a GPU."""
