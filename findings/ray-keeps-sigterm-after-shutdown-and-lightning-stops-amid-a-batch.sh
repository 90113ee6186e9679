#!/usr/bin/env bash
# Ray 2.60.0 and Lightning 2.6.6: ray.init() replaces the process's handler of SIGTERM by one that ends it (its docstring
# says so), and ray.shutdown() does not put the former one back. Lightning, in a process that has been done with Ray for
# long, finds that handler and calls it beside its own. A training that is told to end while its sixth batch runs, as
# SLURM and Kubernetes tell it, otherwise finishes the batch, raises SIGTERMException and ends with status 0, its
# checkpoint after step 6. With a shutdown Ray before it, SystemExit(15) breaks out of the middle of the batch: the
# checkpoint is of step 5, the status 15, callbacks that save at a SIGTERMException save nothing, and no warning says
# why. Who predicts or refines pseudo labels on Ray and then trains on them in one program keeps
# signal.getsignal(signal.SIGTERM) before ray.init() and puts it back after ray.shutdown().
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q ray==2.60.0 lightning==2.6.6 torch==2.13.0 numpy==2.2.6
cat >"$folder/case.py" <<'CASE'
import os
import signal
import sys
import time

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

if sys.argv[1] != "alone":
    import ray

    before = signal.getsignal(signal.SIGTERM)
    ray.init(address="local", include_dashboard=False, num_cpus=1, log_to_driver=False)
    ray.shutdown()
    assert signal.getsignal(signal.SIGTERM) != before
    if sys.argv[1] == "put back":
        signal.signal(signal.SIGTERM, before)


class Model(lightning.LightningModule):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))

    def training_step(self, batch, number):
        if number == 5:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.1)
            print("the batch ends", flush=True)
        return (self.weight * batch[0]).mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


class Told(lightning.Callback):
    def on_exception(self, trainer, module, exception):
        print("told of", type(exception).__name__, "after", trainer.global_step, "steps", flush=True)


trainer = lightning.Trainer(
    max_epochs=1,
    logger=False,
    accelerator="cpu",
    enable_progress_bar=False,
    enable_model_summary=False,
    callbacks=[Told(), ModelCheckpoint(sys.argv[1], save_on_exception=True)],
)
trainer.fit(Model(), DataLoader(TensorDataset(torch.ones(50, 1))))
CASE
cd "$folder"
run() { # KIND: what is told, the checkpoint and the status, in one line
  status=0
  venv/bin/python -W ignore case.py "$1" >said 2>log || status=$?
  echo "$(tr '\n' ' ' <said)$(ls "$1") status $status"
}
orderly='the batch ends told of SIGTERMException after 6 steps epoch=0-step=6.ckpt status 0'
for kind in alone 'after Ray' 'put back'; do
  found=$(run "$kind")
  echo "$kind: $found"
  case $kind in
    'after Ray') [ "$found" = 'told of SystemExit after 5 steps epoch=0-step=5.ckpt status 15' ] ;;
    *) [ "$found" = "$orderly" ] ;;
  esac || { tail -5 log; exit 1; }
done
