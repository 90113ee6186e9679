"""What the kernels stand on: threads, memory, vectors, the layout of values, loading at first use."""
