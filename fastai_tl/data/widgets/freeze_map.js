// The freeze map: groups of layers as blocks that are clicked, dragged over and reached by keyboard. Python holds the state.
const SIGN = { frozen: "❄", trains: "▸", partly: "◐", drifts: "≋", none: "" };
const make = (tag, attributes = {}, ...children) => {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children.filter(c => c !== null));
  return e;
};

function render({ model, el }) {
  const send = (what) => model.send(what);
  const groups = () => model.get("groups");
  const index = name => groups().findIndex(g => g.name === name);
  const row = make("div", { class: "ftl-fm-row", role: "group", "aria-label": "Freeze map: layer groups, stem first" });
  const help = make("p", { class: "ftl-fm-help" });
  const box = make("div", { class: "ftl-fm-box" });
  let blocks = [], drag = null, at = Math.max(groups().length - 1, 0);
  el.classList.add("ftl-fm");
  el.append(row, help, box);

  function build() {
    blocks = groups().map((g, i) => {
      const b = make("button", { type: "button", role: "switch", class: "ftl-fm-block" },
        make("b", {}), make("span", { class: "ftl-fm-bar", "aria-hidden": "true" }, make("i")), make("span", { class: "ftl-fm-count" }), make("span", { class: "ftl-fm-state" }));
      b.addEventListener("pointerdown", e => {
        if (e.button) return;
        drag = { from: i, to: i, on: groups()[i].state === "trains" ? "freeze" : "train", shift: e.shiftKey };
        b.releasePointerCapture?.(e.pointerId);
        preview();
      });
      b.addEventListener("pointerenter", () => { if (drag) { drag.to = i; preview(); } });
      b.addEventListener("click", e => { if (!e.detail) toggle(i, e.shiftKey); }); // by keyboard or by a screen reader
      b.addEventListener("keydown", e => key(e, i));
      b.addEventListener("focus", () => { at = i; tabs(); send({ do: "open", group: groups()[i].name }); });
      return b;
    });
    row.replaceChildren(...blocks);
    row.classList.toggle("ftl-fm-many", blocks.length > 11);
    at = Math.min(at, blocks.length - 1);
    tabs();
  }
  const tabs = () => blocks.forEach((b, i) => { b.tabIndex = i === at ? 0 : -1; });
  const touched = () => drag ? groups().slice(Math.min(drag.from, drag.to), Math.max(drag.from, drag.to) + 1).map(g => g.name) : [];
  function preview() {
    const now = new Set(touched());
    blocks.forEach((b, i) => b.classList.toggle("ftl-fm-marked", now.has(groups()[i].name)));
  }
  function drop() {
    if (!drag) return;
    const names = touched(), { on, shift, from } = drag;
    drag = null;
    preview();
    if (names.length === 1) toggle(from, shift);
    else send({ do: "paint", groups: names, frozen: on === "freeze" });
  }
  function toggle(i, all) {
    const g = groups()[i];
    send(all ? { do: "boundary", group: g.name, frozen: g.state === "trains" } : { do: "paint", groups: [g.name], frozen: g.state === "trains" });
  }
  function key(e, i) {
    const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[e.key];
    const to = step ? i + step : e.key === "Home" ? 0 : e.key === "End" ? blocks.length - 1 : null;
    if (to !== null && blocks[to]) {
      e.preventDefault();
      e.stopPropagation();
      blocks[to].focus();
    }
    if ((e.key === "Enter" || e.key === " ") && e.shiftKey) {
      e.preventDefault();
      e.stopPropagation();
      toggle(i, true);
    }
  }

  function draw() {
    const all = groups();
    if (blocks.length !== all.length || blocks.some((b, i) => b.firstChild.textContent !== all[i].name)) build();
    all.forEach((g, i) => {
      const b = blocks[i], [name, bar, count, state] = b.children;
      name.textContent = g.name;
      count.textContent = g.count;
      state.textContent = `${SIGN[g.state]} ${g.word}`;
      b.style.setProperty("--share", Math.max(Math.sqrt(g.share), 0.02));
      b.dataset.state = g.state;
      b.setAttribute("aria-checked", g.state === "partly" ? "mixed" : String(g.state === "trains"));
      b.setAttribute("aria-label", `${g.name}: ${g.word}, ${g.count} parameters. Trains`);
      b.title = `${g.name}: ${g.word}, ${g.parameters.toLocaleString("en")} parameters. ${g.tip}`;
      b.classList.toggle("ftl-fm-open", g.name === model.get("selected"));
    });
    help.textContent = model.get("help");
    details();
  }

  function details() {
    const g = groups()[index(model.get("selected"))];
    const had = box.contains(document.activeElement) ? document.activeElement.dataset.key : null;
    const top = box.querySelector(".ftl-fm-layers")?.scrollTop ?? 0;
    if (!g) {
      box.replaceChildren(make("p", { class: "ftl-fm-help" }, "Select a group to see its layers and its learning rate."));
      return;
    }
    const press = (text, key, tip, act) => {
      const b = make("button", { type: "button", class: "ftl-fm-press", title: tip, "data-key": key }, text);
      b.addEventListener("click", act);
      return b;
    };
    const rate = make("input", { type: "text", inputmode: "decimal", value: g.rate, "aria-label": `Learning rate of ${g.name}`, "data-key": "rate", size: 7 });
    rate.addEventListener("change", () => send({ do: "rate", group: g.name, value: rate.value }));
    rate.addEventListener("keydown", e => e.stopPropagation());
    const unfolded = model.get("unfolded");
    const fold = press(`${unfolded ? "▾" : "▸"} ${g.layers} layer${g.layers === 1 ? "" : "s"}`, "fold", `Show the layers of ${g.name}`, () => send({ do: "fold" }));
    fold.setAttribute("aria-expanded", String(unfolded));
    const list = unfolded ? make("ul", { class: "ftl-fm-layers", tabindex: "0", "aria-label": `Layers of ${g.name}` }, ...model.get("layers").map(o => {
      const tick = make("input", { type: "checkbox", "data-key": o.path, "aria-label": `${o.path} trains` });
      tick.checked = o.state === "trains";
      tick.indeterminate = o.state === "partly";
      tick.disabled = o.state === "none";
      tick.addEventListener("change", () => send({ do: "layer", path: o.path, frozen: !tick.checked }));
      return make("li", { "data-state": o.state }, make("label", { title: o.kind }, tick, " ", o.path || o.kind), make("span", { class: "ftl-fm-count" }, o.count), make("span", { class: "ftl-fm-state" }, `${SIGN[o.state]} ${o.word}`));
    })) : null;
    const more = model.get("more");
    box.replaceChildren(
      make("div", { class: "ftl-fm-facts" }, make("b", {}, g.name), make("span", {}, g.facts), make("label", {}, "Rate ", rate)),
      make("div", { class: "ftl-fm-acts" },
        press("Freeze up to here", "back", `Freeze ${g.name} and all groups before it (Shift and a click on a block that trains)`, () => send({ do: "boundary", group: g.name, frozen: true })),
        press("Train from here on", "on", `Train ${g.name} and all groups after it, freeze those before`, () => send({ do: "boundary", group: g.name, frozen: false })),
        fold),
      ...(list ? [list] : []),
      ...(list && more ? [press(more, "more", "Show further layers", () => send({ do: "more" }))] : []));
    box.querySelector(".ftl-fm-layers")?.scrollTo(0, top);
    if (had) box.querySelector(`[data-key="${CSS.escape(had)}"]`)?.focus();
  }

  const up = () => drop();
  window.addEventListener("pointerup", up);
  const redraw = () => draw();
  model.on("msg:custom", redraw);
  model.on("change:groups change:selected change:layers change:unfolded change:help change:more", redraw);
  draw();
  return () => {
    window.removeEventListener("pointerup", up);
    model.off("msg:custom", redraw);
    model.off("change:groups change:selected change:layers change:unfolded change:help change:more", redraw);
  };
}

export default { render };
