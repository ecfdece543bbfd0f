"""What is wrong with a site: what it loads from elsewhere, links and anchors that lead nowhere.

And a list of what it links to elsewhere.
"""

import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class DocsError(Exception):
    "Something in the notebooks, or in the site made from them, that has to be put right"


class Html(HTMLParser):
    "What a page links to, what it loads, and which anchors it has"

    def __init__(self, text: str):
        super().__init__()
        self.ids = set()
        self.links = []
        self.loads = []
        self.within = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]):
        a = {k: v or "" for k, v in attrs}
        self.within = tag
        if "id" in a:
            self.ids.add(a["id"])
        if tag == "a":
            if "href" in a:
                self.links.append(a["href"])
            return
        self.loads += [a[k] for k in ("src", "data", "poster", "href", "xlink:href") if k in a]
        self.loads += [part.split()[0] for part in a.get("srcset", "").split(",") if part.strip()]
        self.loads += css_urls(a.get("style", ""))

    def handle_data(self, data: str):
        if self.within == "style":
            self.loads += css_urls(data)
        elif self.within == "script":
            self.loads += re.findall(r"https?://(?!www\.w3\.org/)[^\s\"'<>)]+", data)

    def handle_endtag(self, tag: str):
        self.within = ""


def css_urls(text: str) -> list[str]:
    "What a style sheet loads"
    text = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    return [a or b for a, b in re.findall(r"url\(\s*[\"']?([^)\"']+)|@import\s+[\"']([^\"']+)", text)]


def check_site(site: Path):
    "Raise `DocsError` if a page loads something from elsewhere, or refers to a file or an anchor that is not there"
    pages = {p: Html(p.read_text(encoding="utf-8")) for p in sorted(site.rglob("*.html"))}
    wrong = []
    for path, page in pages.items():
        loads = [(u, True) for u in page.loads]
        wrong += [
            f"{path.relative_to(site)}: {w}"
            for u, loaded in [*loads, *((u, False) for u in page.links)]
            if (w := what_is_wrong(u, path, pages, loaded))
        ]
    for path in sorted(site.rglob("*.css")):
        wrong += [
            f"{path.relative_to(site)}: {w}"
            for u in css_urls(path.read_text(encoding="utf-8"))
            if (w := what_is_wrong(u, path, pages, True))
        ]
    if wrong:
        raise DocsError("The site is not sound:\n" + "\n".join(f"  {w}" for w in dict.fromkeys(wrong)))


def what_is_wrong(url: str, path: Path, pages: dict[Path, Html], loaded: bool) -> str:
    "What is wrong with a reference in the file `path`; nothing if it is sound"
    parts = urlsplit(url)
    if parts.scheme == "data" or (parts.scheme == "mailto" and not loaded):
        return ""
    if parts.scheme or parts.netloc:
        return f"loads {url[:200]}" if loaded else ""
    target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
    if not target.is_file():
        return f"refers to {url}, which is not there"
    anchor = unquote(parts.fragment)
    if anchor and target in pages and anchor not in pages[target].ids:
        return f"refers to {url}; that page has no such anchor"
    return ""


def external_links(site: Path) -> str:
    "Addresses elsewhere that the pages link to, a line each, with the pages"
    found = {}
    for path in sorted(site.rglob("*.html")):
        for url in Html(path.read_text(encoding="utf-8")).links:
            if urlsplit(url).scheme in ("http", "https"):
                found.setdefault(url, set()).add(path.relative_to(site).as_posix())
    return "".join(f"{url}\t{', '.join(sorted(pages))}\n" for url, pages in sorted(found.items()))
