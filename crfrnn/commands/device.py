"""What the option --device names: where networks and CRFs compute."""

import torch


def device_of(name: str) -> torch.device:
    """That of torch for ``cpu``, ``cuda``, ``cuda:1``, or ``auto``: a GPU where there is one.

    ValueError where it cannot be used here.

    >>> device_of("cpu")
    device(type='cpu')
    """
    try:
        device = torch.device(("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name)
        torch.empty(0, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"device: {name} cannot be used here, say cpu or auto ({reason})") from None
    return device
