"""What a distribution says of itself: its README without links into a checkout, and the licence of what is in it.

CRFRNN_WITHOUT_MODELS=1 leaves the weights, which are for non-commercial use, out of the wheel: MIT alone is left.
"""

import os
import re
from pathlib import Path

from hatchling.builders.hooks.plugin.interface import BuildHookInterface
from hatchling.metadata.plugin.interface import MetadataHookInterface

PICTURE = re.compile(r"^!\[[^\]]*\]\((?![a-z]+:)[^)]*\)\n\n(?:\*[^\n]*\*\n\n)?", re.MULTILINE)  # and what is below it
LINK = re.compile(r"\[([^\]]+)\]\((?![a-z]+:)([^)\s]+)\)")


class Readme(MetadataHookInterface):
    """On the page of an index nothing lies beside the README: a link becomes its text and the name of the file."""

    def update(self, metadata):
        text = (Path(self.root) / "README.md").read_text(encoding="utf-8")
        metadata["readme"] = {"content-type": "text/markdown", "text": readable_alone(text)}


class WithoutModels(BuildHookInterface):
    def initialize(self, version, build_data):
        if os.environ.get("CRFRNN_WITHOUT_MODELS", "0") in ("", "0"):
            return
        self.build_config.target_config["exclude"] = ["*.safetensors"]
        core = self.metadata.core  # metadata hooks are no way: from an sdist hatchling believes its PKG-INFO instead
        core._license_expression, core._license_files = "MIT", ["LICENSE"]


def readable_alone(text):
    """The README without its pictures, and with names of files in place of links to them."""

    def named(link):
        words, target = link.groups()
        return words if target.startswith("#") or target in words else f"{words} ({target})"

    return LINK.sub(named, PICTURE.sub("", text))
