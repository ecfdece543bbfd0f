/** fastai_tl in JupyterLab and Notebook 7. */
import { ILabShell, ILayoutRestorer, JupyterFrontEnd, JupyterFrontEndPlugin } from '@jupyterlab/application';
import { Dialog, ICommandPalette, InputDialog, MainAreaWidget, Notification, showDialog, showErrorMessage, WidgetTracker } from '@jupyterlab/apputils';
import { IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import { ILauncher } from '@jupyterlab/launcher';
import { INotebookTracker, NotebookActions } from '@jupyterlab/notebook';
import { ISettingRegistry } from '@jupyterlab/settingregistry';
import { IStatusBar } from '@jupyterlab/statusbar';
import { Widget } from '@lumino/widgets';
import { CoursePage } from './course';
import { newNotebook, newWorkbench } from './create';
import { el } from './dom';
import { call, IExported, News, onLinesOfItsOwn, TabId, TABS } from './model';
import { icon, IOptions, lessonsIcon, notebookIcon, SidePanel } from './panel';
import type { Session } from './session';
import { StatusItem } from './status';

const ID = 'fastai-tl:plugin';
const CATEGORY = 'Transfer learning';
const COMMANDS = {
  open: 'fastai-tl:open-panel',
  diagnose: 'fastai-tl:diagnose',
  insert: 'fastai-tl:insert-code',
  export: 'fastai-tl:export-model',
  workbench: 'fastai-tl:workbench',
  create: 'fastai-tl:new-notebook',
  lessons: 'fastai-tl:open-lessons',
  about: 'fastai-tl:about'
};

const plugin: JupyterFrontEndPlugin<void> = {
  id: ID,
  description: 'Transfer learning: panels of the Learners in the notebook that is in front, lessons, and a notebook to begin with',
  autoStart: true,
  requires: [INotebookTracker],
  optional: [ILabShell, ICommandPalette, ILauncher, ILayoutRestorer, ISettingRegistry, IStatusBar, IDefaultFileBrowser],
  activate
};

function activate(
  app: JupyterFrontEnd,
  tracker: INotebookTracker,
  labShell: ILabShell | null,
  palette: ICommandPalette | null,
  launcher: ILauncher | null,
  restorer: ILayoutRestorer | null,
  settings: ISettingRegistry | null,
  statusBar: IStatusBar | null,
  browser: IDefaultFileBrowser | null
): void {
  const { commands } = app;
  const options: IOptions & { courseFolder: string } = { firstTab: 'layers', refreshRate: 0.5, courseFolder: 'course' };
  let showStatus = true;
  const panel = new SidePanel(tracker, commands, () => options, insert);
  app.shell.add(panel, 'right', { rank: 700, type: 'Transfer learning' });
  restorer?.add(panel, panel.id);
  const here = (args: object) => (args as { cwd?: string }).cwd || (browser?.model.path ?? '');
  const hasNotebook = () => tracker.currentWidget !== null;

  function open(tab?: TabId): void {
    app.shell.activateById(panel.id);
    panel.follow();
    if (tab) {
      panel.view?.select(tab);
    }
  }

  /** Put text into a new cell below the active one, or into the active one where that is an empty cell of code. */
  function insert(text: string): void {
    const notebook = tracker.currentWidget?.content;
    if (!notebook || !text) {
      return;
    }
    const cell = notebook.activeCell?.model;
    if (cell?.type !== 'code' || cell.getMetadata('editable') === false || cell.sharedModel.getSource().trim()) {
      NotebookActions.insertBelow(notebook);
    }
    const editor = notebook.activeCell?.editor;
    if (editor?.replaceSelection) {
      const { start, end } = editor.getSelection();
      const before = (editor.getLine(start.line) ?? '').slice(0, start.column);
      const after = (editor.getLine(end.line) ?? '').slice(end.column);
      editor.replaceSelection(onLinesOfItsOwn(text, before, after));
    } else {
      notebook.activeCell?.model.sharedModel.setSource(text);
    }
  }

  /** The Learner of the notebook in front; where there is none, the panel opens, which says what to do. */
  function learnerIn(session: Session | null): string | null {
    const name = session?.learner?.name ?? null;
    if (name === null) {
      open();
    }
    return name;
  }

  async function exportModel(session: Session, name: string, folder: string, force: boolean): Promise<void> {
    let note = '';
    const { life } = session;
    const ended: IExported[] = []; // one may be there before the number of its job is
    let heard = (): void => undefined;
    const listen = (_: unknown, news: News) => {
      if (news.kind === 'exported') {
        ended.push(news);
        heard();
      }
    };
    session.news.connect(listen);
    try {
      const answer = await session.ask<{ job: number }>(call('export_model', name, folder, force));
      note = Notification.emit(`Exporting ${name} into ${folder} …`, 'in-progress', { autoClose: false });
      const where = await new Promise<string>((resolve, reject) => {
        heard = () => {
          const own = ended.find(e => e.job === answer?.job);
          if (own?.error === null) {
            resolve(own.folder);
          } else if (own) {
            reject(new Error(own.error ?? ''));
          }
        };
        heard();
        const gone = (): void => {
          if (session.isDisposed || session.life !== life) {
            reject(new Error('The kernel has ended meanwhile.'));
          }
        };
        session.changed.connect(gone);
        session.notebook.disposed.connect(gone);
      });
      Notification.update({ id: note, type: 'success', autoClose: 8000, message: `${name} is exported into ${where}, and gives the same predictions from there.` });
    } catch (e) {
      const text = String((e as Error).message ?? e);
      if (note) {
        Notification.dismiss(note);
      }
      if (!force && text.includes('force=True')) {
        const answer = await showDialog({
          title: 'Replace the model?',
          body: `${folder} holds an exported model already.`,
          buttons: [Dialog.cancelButton(), Dialog.warnButton({ label: 'Replace' })],
          defaultButton: 0
        });
        if (answer.button.accept) {
          await exportModel(session, name, folder, true);
        }
        return;
      }
      await showErrorMessage(`${name} was not exported`, text);
    } finally {
      session.news.disconnect(listen);
    }
  }

  commands.addCommand(COMMANDS.open, {
    label: 'Open the Transfer-Learning Panel',
    caption: 'The Learners of this notebook: layers, rates, plan, training',
    icon,
    describedBy: { args: { type: 'object', properties: { tab: { type: 'string' } } } },
    execute: args => open((args as { tab?: TabId }).tab)
  });
  commands.addCommand(COMMANDS.diagnose, {
    label: 'Diagnose the Learner',
    caption: 'Check for silent mistakes',
    isEnabled: hasNotebook,
    execute: async () => {
      open('doctor');
      await panel.view?.examine();
    }
  });
  commands.addCommand(COMMANDS.insert, {
    label: 'Insert the Code of the Panel',
    caption: 'Put the Python of the open tab into a new cell',
    isEnabled: hasNotebook,
    execute: async () => {
      panel.follow();
      if (learnerIn(panel.current) === null) {
        return;
      }
      if (!panel.view) {
        open();
      }
      insert((await panel.view?.code()) ?? '');
    }
  });
  commands.addCommand(COMMANDS.export, {
    label: 'Export the Model …',
    caption: 'Weights, manifest and model card in a folder, checked before it says done',
    isEnabled: hasNotebook,
    execute: async args => {
      const session = panel.current;
      const name = learnerIn(session);
      if (!session || name === null) {
        return;
      }
      const given = (args as { folder?: string }).folder;
      const folder = given ?? (await InputDialog.getText({ title: `Export ${name}`, label: 'Into this folder, beside the notebook', text: 'model', okLabel: 'Export' })).value;
      if (folder?.trim()) {
        await exportModel(session, name, folder.trim(), false);
      }
    }
  });
  commands.addCommand(COMMANDS.create, {
    label: args => ((args as { isPalette?: boolean }).isPalette ? 'New Transfer-Learning Notebook' : 'Transfer Learning'),
    caption: 'A notebook with the six steps, from images to an exported model',
    icon: notebookIcon,
    execute: args => newNotebook(app, browser, here(args), (args as { folder?: string | null }).folder)
  });
  commands.addCommand(COMMANDS.workbench, {
    label: args => ((args as { isPalette?: boolean }).isPalette ? 'Train an Image Classifier (Workbench)' : 'Train a Classifier'),
    caption: 'From a folder of images to an exported model, without code',
    icon,
    execute: args => newWorkbench(app, browser, here(args), (args as { folder?: string | null }).folder)
  });
  for (const t of TABS) {
    commands.addCommand(`fastai-tl:open-${t.id}`, { label: `Transfer-Learning Panel: ${t.label}`, caption: t.caption, icon, isEnabled: hasNotebook, execute: () => open(t.id) });
    palette?.addItem({ command: `fastai-tl:open-${t.id}`, category: CATEGORY });
  }

  const pages = new WidgetTracker<MainAreaWidget<CoursePage>>({ namespace: 'fastai-tl-course' });
  commands.addCommand(COMMANDS.lessons, {
    label: args => ((args as { isPalette?: boolean }).isPalette ? 'Lessons on Transfer Learning' : 'Lessons'),
    caption: 'The course: eight lessons that check themselves',
    icon: lessonsIcon,
    execute: async args => {
      let page = pages.find(p => !p.isDisposed);
      if (!page) {
        const cwd = here(args);
        page = new MainAreaWidget({ content: new CoursePage(app, cwd, options.courseFolder) });
        page.id = 'fastai-tl-course';
        page.title.label = 'Lessons';
        page.title.icon = lessonsIcon;
        page.title.closable = true;
        await pages.add(page);
      }
      if (!page.isAttached) {
        app.shell.add(page, 'main');
      }
      app.shell.activateById(page.id);
      return page;
    }
  });
  void restorer?.restore(pages, { command: COMMANDS.lessons, name: () => 'course' });

  commands.addCommand(COMMANDS.about, {
    label: 'About the Transfer-Learning Panel',
    execute: () => {
      const keys = (id: string) => commands.keyBindings.filter(k => k.command === id).map(k => k.keys.join(' ').replace('Accel', 'Ctrl'))[0] ?? '';
      const row = (id: string) => el('tr', {}, el('td', {}, commands.label(id, { isPalette: true })), el('td', {}, el('kbd', {}, keys(id))));
      const node = el(
        'div',
        { class: 'ftl-About' },
        el('p', {}, 'The panel in the right sidebar shows the Learners of the notebook in front. What it does is one line of Python each, which it can put into a cell.'),
        el('table', {}, ...[COMMANDS.workbench, COMMANDS.open, COMMANDS.diagnose, COMMANDS.insert, COMMANDS.export, COMMANDS.create, COMMANDS.lessons].map(row)),
        el('p', {}, `fastai_tl in this notebook's Python: ${panel.current?.version ?? ''}`.replace(/: $/, ': not looked at yet'))
      );
      return showDialog({ title: 'Transfer learning (fastai_tl)', body: new Widget({ node }), buttons: [Dialog.okButton({ label: 'Close' })] });
    }
  });

  for (const command of Object.values(COMMANDS)) {
    palette?.addItem({ command, category: CATEGORY, args: { isPalette: true } });
  }
  // among the notebooks, which are in sight at once; the section of its own holds what is rarer
  launcher?.add({ command: COMMANDS.workbench, category: 'Notebook', rank: 0 });
  launcher?.add({ command: COMMANDS.workbench, category: CATEGORY, rank: 0 });
  launcher?.add({ command: COMMANDS.create, category: CATEGORY, rank: 1 });
  launcher?.add({ command: COMMANDS.lessons, category: CATEGORY, rank: 2 });

  labShell?.layoutModified.connect(() => {
    if (panel.isVisible && tracker.currentWidget && !panel.view) {
      panel.follow();
    }
  });

  if (statusBar) {
    const item = new StatusItem(panel, () => open('train'));
    statusBar.registerStatusItem(ID, { item, align: 'left', rank: 3, isActive: () => showStatus && item.text !== '', activeStateChanged: panel.changed });
  }

  const read = (s: ISettingRegistry.ISettings) => {
    options.firstTab = s.composite.firstTab as TabId;
    options.refreshRate = s.composite.refreshRate as number;
    options.courseFolder = s.composite.courseFolder as string;
    showStatus = s.composite.statusBar as boolean;
    panel.follow();
  };
  settings?.load(ID).then(
    s => {
      read(s);
      s.changed.connect(read);
    },
    (e: unknown) => console.warn('The settings of the transfer-learning panel could not be read.', e)
  );
}

export default plugin;
