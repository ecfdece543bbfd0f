// The freeze map on the landing page. What is frozen is kept in the page alone; the line of Python does the same to a Learner.
(function () {
  const box = document.getElementById("freeze-map");
  if (!box) return;
  const net = JSON.parse(box.querySelector("script").textContent), groups = net.groups;
  const frozen = groups.map((g, i) => i < groups.length - 1);
  const total = groups.reduce((n, g) => n + g.parameters, 0);
  const make = (tag, cls, text) => { const e = document.createElement(tag); if (cls) e.className = cls; if (text) e.textContent = text; return e; };
  const caption = make("p", "fm-caption", "Click on a group to freeze or release it. The wider, the more parameters (square root). This map works in the page, without Python; FreezePanel does the same to your Learner.");
  const strip = make("div", "fm-strip"), presets = make("div", "fm-presets"), says = make("p", "fm-says"), code = make("pre", "fm-code");
  says.setAttribute("aria-live", "polite");
  const cells = groups.map((g, i) => {
    const b = make("button", "fm-group");
    b.type = "button";
    b.append(make("b", "", g.name), make("span", "fm-n", short(g.parameters)), make("span", "fm-state"));
    b.style.flexGrow = 0.2 + Math.sqrt(g.parameters / total);
    b.addEventListener("click", () => { frozen[i] = !frozen[i]; draw(); });
    strip.append(b);
    return b;
  });
  for (const [name, rule] of [["Head only", i => i < groups.length - 1], ["Last block", i => i < groups.length - 2], ["All", () => false]]) {
    const b = make("button", "fm-preset", name);
    b.type = "button";
    b.addEventListener("click", () => { groups.forEach((g, i) => { frozen[i] = rule(i); }); draw(); });
    presets.append(b);
  }
  function short(n) { return n >= 1e6 ? (n / 1e6).toFixed(1) + " M" : n >= 1e3 ? Math.round(n / 1e3) + " k" : String(n); }
  function python() {
    const first = frozen.indexOf(false);
    if (first < 0) return 'set_frozen(learn, "*")   # nothing would train';
    if (!frozen.slice(first).includes(true)) return first ? `freeze_to(learn, "${groups[first].name}")` : "unfreeze(learn)";
    const names = groups.filter((g, i) => !frozen[i]).map(g => `"${g.name}"`);
    return `train_only(learn, [${names.join(", ")}])`;
  }
  function draw() {
    cells.forEach((b, i) => {
      b.classList.toggle("frozen", frozen[i]);
      b.setAttribute("aria-pressed", String(frozen[i]));
      b.setAttribute("aria-label", `${groups[i].name}, ${groups[i].layers} layers, ${groups[i].parameters.toLocaleString("en")} parameters, ${frozen[i] ? "frozen" : "trains"}`);
      b.lastChild.textContent = frozen[i] ? "❄ frozen" : "▸ trains";
    });
    const n = groups.reduce((s, g, i) => s + (frozen[i] ? 0 : g.parameters), 0);
    says.textContent = `${n.toLocaleString("en")} of ${total.toLocaleString("en")} parameters train (${Math.round(100 * n / total)} %).`;
    code.textContent = python();
  }
  box.append(caption, presets, strip, says, code);
  draw();
})();
