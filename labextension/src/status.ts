/** In the status bar: what is frozen, and how far training is. */
import { Widget } from '@lumino/widgets';
import { el } from './dom';
import { statusText } from './model';
import type { SidePanel } from './panel';

export class StatusItem extends Widget {
  constructor(
    private panel: SidePanel,
    open: () => void
  ) {
    super({ node: el('button', { type: 'button', class: 'ftl-Status', title: 'Open the panel of the Learner' }) });
    this.node.addEventListener('click', open);
    panel.changed.connect(this.refresh, this);
    this.refresh();
  }

  /** What is shown; '': nothing to show. */
  get text(): string {
    const s = this.panel.current;
    return s ? statusText(s.learners, s.chosen) : '';
  }

  private refresh(): void {
    const { text } = this;
    if (this.node.textContent !== text) {
      this.node.textContent = text;
    }
    this.node.style.display = text ? '' : 'none'; // not `hidden`, which the bar's own style overrides
  }
}
