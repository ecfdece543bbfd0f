/** A new notebook with the six steps. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, showDialog } from '@jupyterlab/apputils';
import { FileDialog, type IDefaultFileBrowser } from '@jupyterlab/filebrowser';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { Contents, KernelSpec } from '@jupyterlab/services';
import { Widget } from '@lumino/widgets';
import { button, el } from './dom';
import { freeName, relative } from './model';
import { notebookContent, workbenchContent } from './template';

/** The kernel for our notebooks: the default if it is Python, else the first that is. */
export function pythonSpec(specs: KernelSpec.ISpecModels | null): { name: string; display_name: string } {
  const all = Object.entries(specs?.kernelspecs ?? {}).flatMap(([name, s]) => (s?.language.toLowerCase() === 'python' ? [{ name, display_name: s.display_name }] : []));
  return all.find(s => s.name === specs?.default) ?? all[0] ?? { name: 'python3', display_name: 'Python 3' };
}

class Question extends Widget implements Dialog.IBodyWidget<string | null> {
  constructor(browser: IDefaultFileBrowser | null, cwd: string) {
    super({ node: el('div', { class: 'ftl-Question' }) });
    const choice = (value: string, text: string, checked: boolean) => {
      const input = el('input', { type: 'radio', name: 'ftl-data', value, ...(checked ? { checked: '' } : {}) });
      input.addEventListener('change', () => {
        this.folder.disabled = !this.own.checked;
        if (this.own.checked) {
          this.folder.focus();
        }
      });
      this.node.append(el('label', {}, input, ' ', text));
      return input;
    };
    choice('sample', 'The sample images that come with fastai_tl', true);
    this.own = choice('folder', 'My images, in this folder with one subfolder for each class:', false);
    this.folder = el('input', { type: 'text', class: 'jp-mod-styled', 'aria-label': 'Folder of images', placeholder: 'my_pictures' });
    this.folder.disabled = true;
    const row = el('div', { class: 'ftl-Question-folder' }, this.folder);
    if (browser) {
      row.append(button('Browse …', 'Choose the folder', () => void this.browse(browser, cwd)));
    }
    this.node.append(row);
  }

  getValue(): string | null {
    return this.own.checked ? this.folder.value.trim() || 'my_pictures' : null;
  }

  private async browse(browser: IDefaultFileBrowser, cwd: string): Promise<void> {
    const manager = browser.model.manager;
    const answer = await FileDialog.getExistingDirectory({ manager, title: 'Folder of images', defaultPath: cwd || undefined });
    const folder = answer.button.accept ? answer.value?.[0] : undefined;
    if (folder) {
      this.own.checked = true;
      this.folder.disabled = false;
      this.folder.value = relative(folder.path, cwd);
    }
  }

  private own: HTMLInputElement;
  private folder: HTMLInputElement;
}

/** Ask for the images, unless `folder` says them; undefined: it was cancelled. */
async function imagesFor(title: string, browser: IDefaultFileBrowser | null, cwd: string, folder?: string | null): Promise<string | null | undefined> {
  if (folder === undefined) {
    const answer = await showDialog({
      title,
      body: new Question(browser, cwd),
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Create' })]
    });
    return answer.button.accept ? answer.value : undefined;
  }
  return folder;
}

/** The six steps as cells: write the notebook into `cwd` and open it. */
export async function newNotebook(app: JupyterFrontEnd, browser: IDefaultFileBrowser | null, cwd: string, given?: string | null): Promise<unknown> {
  const folder = await imagesFor('New transfer-learning notebook', browser, cwd, given);
  return folder === undefined ? null : write(app, cwd, 'transfer-learning.ipynb', spec => notebookContent(folder, spec));
}

/** The Workbench in a notebook of its own, whose one cell is run: nothing has to be typed. */
export async function newWorkbench(app: JupyterFrontEnd, browser: IDefaultFileBrowser | null, cwd: string, given?: string | null): Promise<unknown> {
  const folder = await imagesFor('Train an image classifier', browser, cwd, given);
  if (folder === undefined) {
    return null;
  }
  const panel = (await write(app, cwd, 'workbench.ipynb', spec => workbenchContent(folder, spec))) as NotebookPanel | undefined;
  if (panel) {
    await panel.context.ready;
    await panel.sessionContext.ready;
    await app.commands.execute('notebook:run-all-cells');
  }
  return panel;
}

type Spec = ReturnType<typeof pythonSpec>;

async function write(app: JupyterFrontEnd, cwd: string, wanted: string, content: (spec: Spec) => Record<string, unknown>): Promise<unknown> {
  const { contents, kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const there = (await contents.get(cwd)).content as Contents.IModel[];
  const name = freeName(wanted, there.map(f => f.name));
  const path = cwd ? `${cwd}/${name}` : name;
  await contents.save(path, { type: 'notebook', format: 'json', content: content(pythonSpec(kernelspecs.specs)) });
  return app.commands.execute('docmanager:open', { path });
}
