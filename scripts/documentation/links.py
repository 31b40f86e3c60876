"""The links of the built site: each leads somewhere, and nothing is loaded from elsewhere."""

from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

from ide_transformer import InputError


# The attribute through which an element loads a file when its page is opened.
_LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href"}
# Links of a page that load nothing.
_NOT_LOADED = {"canonical", "prev", "next", "alternate", "edit"}


class _Page(HTMLParser):
    """The anchors of a page, the links on it, and the files that it loads."""

    def __init__(self, text: str):
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        target = given.get(_LOADS.get(tag, ""))
        if target and given.get("rel") not in _NOT_LOADED:
            self.loaded.append(target)


def check_links(site: Path) -> None:
    """**Raises:** `InputError` that lists broken links, and files of other hosts that pages
    load."""
    pages = {path: _Page(path.read_text(encoding="utf-8")) for path in site.rglob("*.html")}
    problems = []
    for path, page in pages.items():
        where = path.relative_to(site)
        problems += [f"{where}: loads {x}" for x in page.loaded if urlsplit(x).netloc]
        for link in {*page.links, *page.loaded}:
            if not _leads_somewhere(link, path, site, pages):
                problems.append(f"{where}: broken link {link}")
    if problems:
        raise InputError("\n".join(sorted(problems)))


def _leads_somewhere(link: str, path: Path, site: Path, pages: dict[Path, _Page]) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    name = unquote(parts.path)
    target = site / name.lstrip("/") if name.startswith("/") else path.parent / name
    target = target.resolve() if name else path
    if target.is_dir():
        target /= "index.html"
    if not target.exists():
        return False
    anchor = unquote(parts.fragment)
    return not anchor or target not in pages or anchor in pages[target].anchors
