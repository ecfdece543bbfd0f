/** A new notebook with the six steps. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { Dialog, showDialog } from '@jupyterlab/apputils';
import type { Contents, KernelSpec } from '@jupyterlab/services';
import { Widget } from '@lumino/widgets';
import { el } from './dom';
import { freeName } from './model';
import { notebookContent } from './template';

/** The kernel for our notebooks: the default if it is Python, else the first that is. */
export function pythonSpec(specs: KernelSpec.ISpecModels | null): { name: string; display_name: string } {
  const all = Object.entries(specs?.kernelspecs ?? {}).flatMap(([name, s]) => (s?.language.toLowerCase() === 'python' ? [{ name, display_name: s.display_name }] : []));
  return all.find(s => s.name === specs?.default) ?? all[0] ?? { name: 'python3', display_name: 'Python 3' };
}

class Question extends Widget implements Dialog.IBodyWidget<string | null> {
  constructor() {
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
    choice('sample', 'The sample set, which comes with the kit', true);
    this.own = choice('folder', 'My pictures, in this folder with one subfolder for each class:', false);
    this.folder = el('input', { type: 'text', class: 'jp-mod-styled', 'aria-label': 'Folder of pictures', placeholder: 'my_pictures' });
    this.folder.disabled = true;
    this.node.append(this.folder);
  }

  getValue(): string | null {
    return this.own.checked ? this.folder.value.trim() || 'my_pictures' : null;
  }

  private own: HTMLInputElement;
  private folder: HTMLInputElement;
}

/** Ask for the pictures, unless `folder` says them; write the notebook into `cwd` and open it. */
export async function newNotebook(app: JupyterFrontEnd, cwd: string, folder?: string | null): Promise<unknown> {
  if (folder === undefined) {
    const answer = await showDialog({
      title: 'New transfer-learning notebook',
      body: new Question(),
      buttons: [Dialog.cancelButton(), Dialog.okButton({ label: 'Create' })]
    });
    if (!answer.button.accept) {
      return null;
    }
    folder = answer.value;
  }
  const { contents, kernelspecs } = app.serviceManager;
  await kernelspecs.ready;
  const there = (await contents.get(cwd)).content as Contents.IModel[];
  const name = freeName('transfer-learning.ipynb', there.map(f => f.name));
  const path = cwd ? `${cwd}/${name}` : name;
  await contents.save(path, { type: 'notebook', format: 'json', content: notebookContent(folder, pythonSpec(kernelspecs.specs)) });
  return app.commands.execute('docmanager:open', { path });
}
