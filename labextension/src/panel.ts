/** The right sidebar: the view of the notebook that is in front, and of every other one, hidden. */
import type { CommandRegistry } from '@lumino/commands';
import type { INotebookTracker, NotebookPanel } from '@jupyterlab/notebook';
import { LabIcon } from '@jupyterlab/ui-components';
import { ISignal, Signal } from '@lumino/signaling';
import { Panel, Widget } from '@lumino/widgets';
import svg from '../style/icons/ftl.svg';
import lessonsSvg from '../style/icons/lessons.svg';
import notebookSvg from '../style/icons/steps.svg';
import { button, el, primary } from './dom';
import type { TabId } from './model';
import { Session } from './session';
import { NotebookView } from './view';

export const icon = new LabIcon({ name: 'fastai-tl:icon', svgstr: svg });
export const lessonsIcon = new LabIcon({ name: 'fastai-tl:lessons', svgstr: lessonsSvg });
export const notebookIcon = new LabIcon({ name: 'fastai-tl:notebook', svgstr: notebookSvg });

export interface IOptions {
  firstTab: TabId;
  /** Seconds between two looks at the kernel, at least. */
  refreshRate: number;
}

export class SidePanel extends Panel {
  constructor(
    private tracker: INotebookTracker,
    private commands: CommandRegistry,
    private options: () => IOptions,
    private insert: (text: string) => void
  ) {
    super();
    this.id = 'fastai-tl-panel';
    this.addClass('ftl-SidePanel');
    this.title.icon = icon;
    this.title.caption = 'Transfer learning (fastai_tl)';
    this.node.setAttribute('aria-label', 'Transfer learning');
    this.node.setAttribute('role', 'region');
    const run = (id: string) => () => void commands.execute(id);
    this.empty = new Widget({
      node: el(
        'div',
        { class: 'ftl-Note' },
        el('p', {}, 'Train a model without code, or open a notebook: its Learners are shown here.'),
        primary(button('Train a classifier', 'The Workbench: from a folder of images to an exported model', run('fastai-tl:workbench'))),
        button('New transfer-learning notebook', 'The six steps as a notebook', run('fastai-tl:new-notebook')),
        button('Lessons', 'The course, and how far you are', run('fastai-tl:open-lessons'))
      )
    });
    this.addWidget(this.empty);
    tracker.currentChanged.connect(this.follow, this);
    this.follow();
  }

  /** The session of the notebook in front; null: there is none. */
  get current(): Session | null {
    const nb = this.tracker.currentWidget;
    return (nb && this.sessions.get(nb)) ?? null;
  }

  /** The view of the notebook in front, if it has been looked at. */
  get view(): NotebookView | null {
    const nb = this.tracker.currentWidget;
    return (nb && this.views.get(nb)) ?? null;
  }

  /** Another notebook is in front, or something is new in this one. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  protected override onAfterShow(): void {
    this.follow();
    this.current?.look();
  }

  protected override onAfterHide(): void {
    this._changed.emit();
  }

  /** Show what belongs to the notebook in front. */
  follow(): void {
    const nb = this.tracker.currentWidget;
    if (nb && !this.sessions.has(nb)) {
      this.open(nb);
    }
    const session = this.current;
    if (session && nb && this.isVisible && !this.views.has(nb)) {
      const view = new NotebookView(session, this.commands, this.insert);
      this.views.set(nb, view);
      this.addWidget(view);
    }
    for (const [k, v] of this.views) {
      v.setHidden(k !== nb);
    }
    this.empty.setHidden(!!nb);
    this._changed.emit();
  }

  private open(nb: NotebookPanel): void {
    const session = new Session(
      nb,
      this.options().firstTab,
      () => this.options().refreshRate
    );
    this.sessions.set(nb, session);
    session.changed.connect(() => {
      if (session === this.current) {
        this._changed.emit();
      }
    });
    nb.disposed.connect(() => {
      this.views.get(nb)?.dispose();
      this.views.delete(nb);
      this.sessions.delete(nb);
      this._changed.emit();
    });
  }

  private empty: Widget;
  private sessions = new Map<NotebookPanel, Session>();
  private views = new Map<NotebookPanel, NotebookView>();
  private _changed = new Signal<this, void>(this);
}
