"""Links as GitHub follows them: a folder is its README, and the README of the project is the first page."""

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.nodes import make_refnode

PAGES = {"README": "docs/index", "README.zh-CN": "docs/zh/index", "docs/gallery/README": "docs/examples/index"}


class Links(SphinxPostTransform):
    """Before MyST's own resolver, which warns of folders and of files that are no pages; those become plain names."""

    default_priority = 8

    def run(self, **_: object) -> None:
        for node in list(self.document.findall(pending_xref)):
            if node.get("reftype") != "myst":
                continue
            target: str = node["reftarget"]
            if node["refdomain"] != "doc":
                folder = ((self.env.srcdir / node["refdoc"]).parent / target).resolve()
                if not folder.is_dir():
                    continue
                target = (folder / "README").relative_to(self.env.srcdir).as_posix()
            elif target in self.env.all_docs:
                continue
            target = PAGES.get(target, target)
            text = node[0].deepcopy()
            there = target in self.env.all_docs
            node.replace_self(self._link(node["refdoc"], target, text) if there else text)

    def _link(self, document: str, target: str, text: nodes.Node) -> nodes.reference:
        return make_refnode(self.app.builder, document, target, "", text)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_post_transform(Links)
    return {"parallel_read_safe": True}
