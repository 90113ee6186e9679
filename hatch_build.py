"""CRFRNN_WITHOUT_MODELS=1 leaves the weights, which are for non-commercial use, out of the wheel: MIT alone is left."""

import os

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class WithoutModels(BuildHookInterface):
    def initialize(self, version, build_data):
        if os.environ.get("CRFRNN_WITHOUT_MODELS", "0") not in ("", "0"):
            self.build_config.target_config["exclude"] = ["*.safetensors"]
