#!/usr/bin/env bash
# safetensors 0.8.0: `save_file` and `save_model` make files of mode 0600, whatever the umask says, and take the place of
# a file that is there: what others were allowed to do with it is lost. torch.save and every ordinary file follow the
# umask (0644 here). A model trained on a cluster's shared disk, or by root in a container's build, cannot be read by a
# colleague or by the server's user: "Permission denied" on the weights, while config.json beside them opens.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q safetensors==0.8.0 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import os
import sys
from pathlib import Path

import numpy as np
from safetensors.numpy import save, save_file

os.umask(0o022)
folder, weights = Path(sys.argv[1]), {"w": np.zeros(3, np.float32)}


def mode(path):
    return oct(path.stat().st_mode & 0o777)


ordinary, new, shared = folder / "ordinary", folder / "new.safetensors", folder / "shared.safetensors"
ordinary.write_bytes(save(weights))
save_file(weights, new)
shared.write_bytes(b"")
shared.chmod(0o664)
save_file(weights, shared)
print("its bytes written by Python:", mode(ordinary))
print("save_file, a new file:", mode(new))
print("save_file over a file of mode 0664:", mode(shared))
assert mode(ordinary) == "0o644"
assert mode(new) == mode(shared) == "0o600"
CASE
"$folder/venv/bin/python" "$folder/case.py" "$folder"
