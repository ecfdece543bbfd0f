"""Slides from the lessons, one HTML file each, in _slides/: a slide for each section, without the solutions.

Nothing is fetched when they are shown.

Run: python tools/make_slides.py [FOLDER]

nbconvert's own template loads reveal.js, MathJax and RequireJS from a CDN; this writes plain HTML with a few lines of
script in it instead: the arrow keys, Page Up and Page Down, the space bar or a click move on; `o` shows all slides at
once; printing gives a page for each.
"""

import html
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
SOURCE, TARGET = ROOT / "nbs" / "lessons", ROOT / "_slides"

PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{title}</title><style>
:root{{color-scheme:light dark;--b:#2660a4}}
body{{margin:0;font:clamp(16px,2.7vmin,34px)/1.45 system-ui,sans-serif}}
section{{display:none;box-sizing:border-box;min-height:100vh;padding:5vh 7vw 9vh;max-width:78em;margin:auto}}
section.on,.all section{{display:block}} .all section{{min-height:0;border-bottom:2px solid #8886}}
h1{{font-size:2.2em;color:var(--b)}} h2{{font-size:1.6em;color:var(--b)}} h3{{font-size:1.2em}}
pre{{background:#8882;padding:.7em 1em;border-radius:6px;overflow-x:auto;font-size:.85em}}
code{{font-family:ui-monospace,monospace}}
blockquote{{margin:0;opacity:.75;font-size:1.15em}} table{{border-collapse:collapse}}
td,th{{border-bottom:1px solid #8886;padding:.2em .8em;text-align:left}}
img{{max-width:100%;max-height:62vh;background:#fff;border-radius:4px}} .out{{margin-left:1.5em}}
#n{{position:fixed;right:1em;bottom:.6em;opacity:.6;font-size:.8em}}
@media (prefers-color-scheme:dark){{:root{{--b:#7fb2ec}}body{{background:#181a1f;color:#e6e6e6}}}}
@media print{{section{{display:block;break-after:page;min-height:0}}#n{{display:none}}}}
</style></head><body>{slides}<div id="n" aria-live="polite"></div><script>
const s=[...document.querySelectorAll("section")],n=document.getElementById("n");let i=+location.hash.slice(1)||0;
function go(k){{i=Math.max(0,Math.min(s.length-1,k));s.forEach((e,j)=>e.classList.toggle("on",j==i));
  n.textContent=(i+1)+" / "+s.length;
history.replaceState(null,"","#"+i);if(!document.body.classList.contains("all"))scrollTo(0,0)}}
addEventListener("keydown",e=>{{if(["ArrowRight","PageDown"," "].includes(e.key)){{e.preventDefault();go(i+1)}}
else if(["ArrowLeft","PageUp"].includes(e.key)){{e.preventDefault();go(i-1)}}
else if(e.key=="Home")go(0);else if(e.key=="End")go(s.length-1);
else if(e.key=="o")document.body.classList.toggle("all")}});
addEventListener("click",e=>{{
  if(!e.target.closest("a,pre,summary,table")&&!getSelection().toString())go(i+(e.clientX<innerWidth/3?-1:1))}});go(i)
</script></body></html>
"""


def rendered(text: str) -> str:
    "Markdown as HTML, formulas as they are written"
    from nbconvert.filters import markdown2html_mistune

    text = re.sub(r"\]\((?:glossary\.md#[\w-]+|[\w.]+\.(?:ipynb|md))\)", "](#)", text)  # the slides stand alone
    return re.sub(r'<a href="#">(.*?)</a>', r"\1", markdown2html_mistune(text)).replace("¶", "")


def shown(output: dict) -> str:
    "An output as HTML, if it says something without a kernel"
    data = output.get("data", {})
    if "application/vnd.jupyter.widget-view+json" in data:
        return ""
    if "image/png" in data:
        return f'<img alt="" src="data:image/png;base64,{"".join(data["image/png"]).strip()}">'
    if "text/html" in data:
        return "".join(data["text/html"])
    text = "".join(output.get("text", data.get("text/plain", ""))).strip()
    return f"<pre>{html.escape(text)}</pre>" if text and "<Figure" not in text else ""


def slides(nb: dict) -> list[str]:
    "HTML of each slide: a new one at each heading of the first or second level, and at a prediction"
    out = []
    for cell in nb["cells"]:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for part in re.split(r"(?m)^(?=#{1,2} |### Predict|\*\*What happened)", text):
                if re.match(r"#{1,2} |### Predict|\*\*What happened", part) or not out:
                    out.append("")
                out[-1] += rendered(part)
        elif text.strip():
            outs = "".join(map(shown, cell.get("outputs", [])))
            out[-1] += f'<pre><code>{html.escape(text)}</code></pre>' + (
                f'<div class="out">{outs}</div>' if outs.strip() else ""
            )
    return [o for o in out if o.strip()]


def main():
    sys.path.insert(0, str(ROOT))
    from fastai_tl.course.student_notebooks import read_notebook, student_copy

    target = Path(sys.argv[1]) if len(sys.argv) > 1 else TARGET
    target.mkdir(parents=True, exist_ok=True)
    for p in sorted(SOURCE.glob("*.ipynb")):
        nb = student_copy(read_notebook(p), p.name, keep_outputs=True)
        pages = slides(nb)
        title = re.match(r"# (.*)", "".join(nb["cells"][0]["source"]))[1]
        body = "".join(f"<section>{s}</section>" for s in pages)
        (target / f"{p.stem}.html").write_text(PAGE.format(title=html.escape(title), slides=body), encoding="utf-8")
        print(f"{target / p.stem}.html: {len(pages)} slides")


if __name__ == "__main__":
    main()
