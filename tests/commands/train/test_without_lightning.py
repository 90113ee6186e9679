"""Training without its extra: one line, wherever the data are."""

import sys

import pytest

from crfrnn.commands.train.options import NetworkConfig, StageConfig, TrainOptions
from crfrnn.commands.train.train import train
from crfrnn.data.config import DataConfig
from tests.support import made


def test_without_lightning(tmp_path, monkeypatch):
    data = DataConfig("folders", str(made.make_folders(tmp_path / "data")), options=made.FOLDERS)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    stages, out = [StageConfig("only", epochs=1)], str(tmp_path / "run")
    with pytest.raises(ValueError, match=r"^train: needs Lightning .*pip install 'crfrnn\[train\]'"):
        train(TrainOptions(data=data, network=NetworkConfig("fast-scnn"), stages=stages, out=out))
