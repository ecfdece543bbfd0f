/** Elements in one line. */
type Child = Node | string | null;

export function el<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  attributes: Record<string, string> = {},
  ...children: Child[]
): HTMLElementTagNameMap[K] {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    e.setAttribute(k, v);
  }
  e.append(...children.filter(c => c !== null));
  return e;
}

export function button(text: string, title: string, act: () => void): HTMLButtonElement {
  const b = el('button', { type: 'button', class: 'ftl-Button', title }, text);
  b.addEventListener('click', act);
  return b;
}

/** The one button of a view that leads on. */
export function primary(b: HTMLButtonElement): HTMLButtonElement {
  b.classList.add('ftl-mod-primary');
  return b;
}

/** Make the content of an element these children; nothing happens to it if they say the same. */
export function fill(e: HTMLElement, ...children: Child[]): void {
  const next = el('div', {}, ...children);
  if (next.innerHTML !== e.innerHTML) {
    e.replaceChildren(...Array.from(next.childNodes));
  }
}
