"""Fails where the host would wait for the device: what a CUDA graph cannot capture, seen without a GPU."""

import torch
from torch.utils._python_dispatch import TorchDispatchMode

READS = {
    torch.ops.aten._local_scalar_dense.default,
    torch.ops.aten.is_nonzero.default,
    torch.ops.aten.nonzero.default,
    torch.ops.aten.masked_select.default,
    torch.ops.aten._unique2.default,
    torch.ops.aten.unique_consecutive.default,
    torch.ops.aten.equal.default,
}


class NoSync(TorchDispatchMode):
    """Inside it, an operation whose result the host must know raises; on a GPU torch's own debug mode does as well."""

    def __enter__(self):
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("error")
        return super().__enter__()

    def __exit__(self, *exception):
        if torch.cuda.is_available():
            torch.cuda.set_sync_debug_mode("default")
        return super().__exit__(*exception)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        assert func not in READS, f"{func} makes the host wait for the device"
        return func(*args, **(kwargs or {}))
