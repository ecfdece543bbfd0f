/** The side panel of one notebook: Learners, tabs, and the widgets of the chosen tab. */
import { MimeModel } from '@jupyterlab/rendermime';
import type { IRenderMime } from '@jupyterlab/rendermime';
import type { CommandRegistry } from '@lumino/commands';
import { Panel, Widget } from '@lumino/widgets';
import { button, el, fill, primary } from './dom';
import { call, frozenText, ILearner, KernelError, TabId, TABS, tabAfter, trainingText } from './model';
import type { Session } from './session';

const WIDGET = 'application/vnd.jupyter.widget-view+json';
export const INSTALL = "%pip install 'fastai-tl[lab]'";

interface IShown {
  model: string;
  code: string;
}

export class NotebookView extends Panel {
  constructor(
    readonly session: Session,
    private commands: CommandRegistry,
    /** Put Python into the notebook. */
    private insert: (text: string) => void
  ) {
    super();
    this.addClass('ftl-View');
    this.head.addClass('ftl-View-head');
    this.host.addClass('ftl-View-host');
    this.addWidget(this.head);
    this.addWidget(this.host);
    this.build();
    session.changed.connect(this.refresh, this);
    session.notebook.title.changed.connect(this.refresh, this);
    this.refresh();
  }

  override dispose(): void {
    if (this.isDisposed) {
      return;
    }
    this.session.changed.disconnect(this.refresh, this);
    this.clear();
    super.dispose();
  }

  /** Show a tab of the chosen Learner. */
  select(tab: TabId, focus = false): void {
    this.session.tab = tab;
    this.refresh();
    if (focus) {
      this.tabs.get(tab)?.focus();
    }
  }

  /** The doctor's tab, after a new look. */
  async examine(): Promise<void> {
    this.session.tab = 'doctor';
    const name = this.session.learner?.name;
    if (name !== undefined) {
      await this.session.ask<IShown>(call('examine', name));
    }
    this.refresh();
  }

  /** The Python of the tab that is shown; what was known last while the kernel is busy. */
  async code(): Promise<string> {
    const { session } = this;
    const learner = session.learner;
    if (!learner) {
      return '';
    }
    const known = session.code[session.tab] ?? this.codes.get(this.key(learner, session.tab)) ?? '';
    if (session.busy) {
      return known;
    }
    return (await session.ask<{ code: string }>(call('code', learner.name, session.tab)))?.code ?? known;
  }

  private build(): void {
    this.list.addEventListener('change', () => {
      this.session.chosen = this.list.value;
      this.session.look();
      this.refresh();
    });
    const bar = el('div', { class: 'ftl-Tabs', role: 'tablist', 'aria-label': 'Panels of the Learner' });
    for (const t of TABS) {
      const b = el('button', { type: 'button', role: 'tab', class: 'ftl-Tab', title: t.caption, 'data-tab': t.id }, t.label);
      b.addEventListener('click', () => this.select(t.id));
      b.addEventListener('keydown', e => {
        const to = tabAfter(e.key, t.id);
        if (to) {
          e.preventDefault();
          this.select(to, true);
        }
      });
      this.tabs.set(t.id, b);
      bar.append(b);
    }
    this.bar = bar;
    this.choice = el('div', { class: 'ftl-Choice' }, el('label', {}, 'Learner ', this.list), this.share);
    const insert = button('Insert code', 'Put the Python of this tab into a new cell', () => {
      void this.commands.execute('fastai-tl:insert-code');
    });
    this.choice.append(insert);
    this.head.node.append(this.title_, this.choice, this.training, this.note, bar);
    this.host.node.setAttribute('role', 'tabpanel');
  }

  /** What is shown belongs to one Learner of one kernel. */
  private key(learner: ILearner, tab: TabId): string {
    return `${this.session.life} ${learner.id} ${tab}`;
  }

  /** Bring everything to what the session is now. */
  refresh(): void {
    if (this.isDisposed) {
      return;
    }
    const s = this.session;
    const learner = s.learner;
    if (this.life !== s.life) {
      this.clear();
      this.life = s.life;
    }
    fill(this.title_, s.notebook.title.label);
    this.title_.title = s.context.path;
    fill(this.note, ...this.noteOf(learner));
    this.note.hidden = !this.note.firstChild;
    this.bar.hidden = this.choice.hidden = !learner;
    this.host.setHidden(!learner);
    this.forget();
    if (!learner) {
      this.training.hidden = true;
      return;
    }
    fill(this.list, ...s.learners.map(o => el('option', { value: o.name, ...(o === learner ? { selected: '' } : {}) }, o.name)));
    this.list.value = learner.name;
    fill(this.share, frozenText(learner.frozen));
    this.training.hidden = false; // its line is always there, so that nothing moves when a training begins
    this.training.classList.toggle('ftl-mod-idle', !learner.training);
    fill(this.training, learner.training ? trainingText(learner.training) : 'Idle');
    for (const [id, b] of this.tabs) {
      b.setAttribute('aria-selected', String(id === s.tab));
      b.tabIndex = id === s.tab ? 0 : -1;
    }
    this.host.node.setAttribute('aria-label', TABS.find(t => t.id === s.tab)?.label ?? '');
    this.showTab(learner, s.tab);
  }

  private noteOf(learner: ILearner | null): (HTMLElement | string)[] {
    const s = this.session;
    const p = (...c: (Node | string)[]) => el('p', {}, ...c);
    switch (s.standing) {
      case 'none':
        return [p('This notebook has no kernel. Choose one above the notebook, on the right.')];
      case 'starting':
        return [p(s.busy ? 'The kernel is busy; the panel follows when it has time.' : 'Looking at the kernel …')];
      case 'other':
        return [p('fastai_tl is for notebooks with a Python kernel.')];
      case 'missing':
        return [
          p('fastai_tl is not installed in the Python of this notebook. Install it, then restart the kernel:'),
          el('pre', {}, INSTALL),
          button('Insert this line', 'Into a cell', () => this.insert(INSTALL)),
          button('Refresh', 'Ask the kernel once more', () => this.session.look())
        ];
      case 'old':
        return [p('The fastai_tl in the Python of this notebook is older than this panel. Bring it up to date:'), el('pre', {}, `${INSTALL} --upgrade`)];
      case 'error':
        return [p('The kernel could not say what there is: ', s.problem), button('Refresh', 'Ask the kernel once more', () => this.session.look())];
    }
    if (s.busy) {
      const training = learner?.training ? '' : ' What you press here is done when it has time.';
      return [p(`A cell is running.${training}`)];
    }
    if (learner) {
      return [];
    }
    if (s.data.length) {
      const line = `learn = transfer_learner(${s.data[s.data.length - 1]}, "tf_efficientnet_lite0")`;
      return [
        p('There are DataLoaders, but no Learner yet. Make one:'),
        el('pre', {}, line),
        button('Insert this line', 'Into a cell', () => this.insert(`from fastai_tl.all import *\n\n${line}`))
      ];
    }
    const begin = 'from fastai_tl.all import *\n\ndls = sample_dls()\nlearn = transfer_learner(dls, "tf_efficientnet_lite0")';
    return [
      p('There is no Learner in this notebook yet. When a cell has made one, its panels are here.'),
      el('pre', {}, begin),
      primary(button('Train a classifier', 'The Workbench: from a folder of images to an exported model', () => void this.commands.execute('fastai-tl:workbench'))),
      button('Insert these lines', 'Into a cell', () => this.insert(begin)),
      button('New notebook', 'The six steps as a notebook', () => void this.commands.execute('fastai-tl:new-notebook'))
    ];
  }

  /** The widget of a tab, asked of the kernel when it is first looked at and kept then. */
  private showTab(learner: ILearner, tab: TabId): void {
    const key = this.key(learner, tab);
    for (const [k, w] of this.shown) {
      w.setHidden(k !== key);
    }
    if (this.shown.has(key) || this.asked.has(key)) {
      this.waiting.hidden = !this.asked.has(key);
      fill(this.waiting, this.waitingText);
      return;
    }
    this.host.node.prepend(this.waiting);
    this.waiting.hidden = false;
    fill(this.waiting, this.waitingText);
    if (this.session.busy) {
      return; // comes again when it is not
    }
    this.asked.add(key);
    void this.open(key, learner.name, tab);
  }

  private get waitingText(): string {
    return this.session.busy || this.session.slow ? 'This tab opens when the kernel has time.' : 'Opening …';
  }

  private async open(key: string, name: string, tab: TabId): Promise<void> {
    let widget: Widget;
    let failed = false;
    try {
      const answer = await this.session.ask<IShown>(call('show', name, tab));
      if (!answer) {
        throw new KernelError('The kernel gave no panel.', 'other');
      }
      this.codes.set(key, answer.code);
      widget = await this.render(answer.model);
    } catch (e) {
      failed = true;
      const again = button('Try again', 'Ask the kernel once more', () => {
        this.shown.get(key)?.dispose();
        this.shown.delete(key);
        this.refresh();
      });
      const node = el('div', { class: 'ftl-Problem', role: 'alert' }, el('p', {}, String((e as Error).message ?? e)), again);
      widget = new Widget({ node });
    }
    this.asked.delete(key);
    if (this.isDisposed || !key.startsWith(`${this.session.life} `)) {
      widget.dispose();
      return;
    }
    this.shown.set(key, widget);
    this.host.addWidget(widget);
    this.refresh();
    if (!failed) {
      this.session.look(); // with the Python of what is open now
    }
  }

  /** By the notebook's own renderers: the widget manager of its kernel is among them. */
  private async render(model_id: string): Promise<Widget> {
    const mime = this.session.notebook.content.rendermime;
    const renderer: IRenderMime.IRenderer = mime.createRenderer(WIDGET);
    const data = { [WIDGET]: { version_major: 2, version_minor: 0, model_id } };
    await renderer.renderModel(new MimeModel({ trusted: true, data }));
    return renderer;
  }

  /** The panels of Learners that are gone are closed in the kernel, and so they are here. */
  private forget(): void {
    const there = new Set(this.session.learners.map(o => String(o.id)));
    for (const [k, w] of this.shown) {
      if (!there.has(k.split(' ')[1])) {
        w.dispose();
        this.shown.delete(k);
      }
    }
  }

  /** Panels of a kernel that is gone. */
  private clear(): void {
    for (const w of this.shown.values()) {
      w.dispose();
    }
    this.shown.clear();
    this.asked.clear();
    this.codes.clear();
  }

  private life = -1;
  private head = new Widget();
  private host = new Panel();
  private bar!: HTMLElement;
  private choice!: HTMLElement;
  private title_ = el('div', { class: 'ftl-View-title' });
  private list = el('select', { 'aria-label': 'Learner' });
  private share = el('span', { class: 'ftl-Share' });
  private training = el('div', { class: 'ftl-Training', role: 'status' });
  private note = el('div', { class: 'ftl-Note', role: 'status' });
  private waiting = el('div', { class: 'ftl-Waiting' });
  private tabs = new Map<TabId, HTMLButtonElement>();
  private shown = new Map<string, Widget>();
  private asked = new Set<string>();
  private codes = new Map<string, string>();
}
