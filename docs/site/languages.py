"""Two languages in one site: the switch on every page, a navigation of one's own, a search that knows both."""

import gettext
import re
from pathlib import Path
from typing import Any

import jieba
import sphinx.locale
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.search.zh import SearchChinese

CHINESE = "docs/zh/"
FIRST_CAPTION = "开始"  # of the Chinese part of the navigation, in docs/index.md
FURO = {  # the theme's words that Sphinx has no Chinese for
    "Back to top": "回到顶部",
    "Contents": "目录",
    "Hide navigation sidebar": "收起导航",
    "Hide table of contents sidebar": "收起目录",
    "Home": "首页",
    "Next": "下一页",
    "On this page": "本页内容",
    "Previous": "上一页",
    "Search": "搜索",
    "Skip to content": "跳到正文",
    "Toggle Light / Dark / Auto color theme": "切换浅色/深色/自动主题",
    "Toggle site navigation sidebar": "展开导航",
    "Toggle table of contents sidebar": "展开目录",
    "View this page": "查看本页源文件",
}
SPHINX = gettext.translation("sphinx", Path(sphinx.locale.__file__).parent, ["zh_CN"])


class SearchBoth(SearchChinese):
    """English words by their stems, Chinese ones as jieba and the glossary part them; the browser parts the query."""

    language_name = "English"  # of the browser's stemmer: Sphinx 9.0 asks for a Chinese one, which is none
    js_splitter_code = """
function splitQuery(query) {
  const words = query.split(/[^\\p{L}\\p{N}_]+/u).filter(Boolean);
  if (!("Segmenter" in Intl)) return words;
  const segmenter = new Intl.Segmenter("zh", {granularity: "word"});
  const parts = (word) => [...segmenter.segment(word)].map((part) => part.segment).reduce((found, part) => {
    const last = found.at(-1);  // words that it does not know come as single characters
    if (part.length === 1 && last?.single) last.text += part;
    else found.push({text: part, single: part.length === 1});
    return found;
  }, []).map((part) => part.text).filter((text, _, all) => text.length > 1 || all.length === 1);
  return words.flatMap((word) => /\\p{Script=Han}/u.test(word) ? parts(word) : [word]);
}
"""


def add_to_page(app: Sphinx, page: str, template: str, context: dict[str, Any], doctree: nodes.document | None) -> None:
    """The link to the other language above the text; the half of the navigation that belongs to this one."""
    chinese = page.startswith(CHINESE)
    other = page.replace(CHINESE, "docs/") if chinese else page.replace("docs/", CHINESE, 1)
    if other not in app.env.all_docs or other == page:
        other = "docs/index" if chinese else CHINESE + "index"
    name, code = ("English", "en") if chinese else ("中文", "zh-CN")
    link = f'<a href="{context["pathto"](other)}" lang="{code}" hreflang="{code}">{name}</a>'
    if "body" in context:
        context["body"] = f'<p class="language">{link}</p>\n{context["body"]}'
    context["language_link"] = link
    english, caption, rest = context.get("furo_navigation_tree", "").partition(_caption())
    context["furo_navigation_tree"] = caption + rest if chinese else english
    if chinese:
        context["language"] = "zh-CN"
        context["gettext"] = context["_"] = lambda text: FURO.get(text) or SPHINX.gettext(text)


def _caption() -> str:
    return f'<p class="caption" role="heading"><span class="caption-text">{FIRST_CAPTION}</span></p>'


def add_terms(app: Sphinx) -> None:
    """The glossary's Chinese terms are words of the search too."""
    jieba.setLogLevel("WARNING")
    for term in re.findall(r"^\| [^|]+ \| ([^|]+?) \|", (app.srcdir / "docs/glossary.md").read_text("utf-8"), re.M):
        jieba.add_word(term)


def setup(app: Sphinx) -> dict[str, bool]:
    app.add_search_language(SearchBoth)
    app.connect("builder-inited", add_terms)
    app.connect("html-page-context", add_to_page, priority=900)  # after furo's
    return {"parallel_read_safe": True}
