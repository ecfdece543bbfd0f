/** The notebook of the six steps, from the file that the Python package ships, too. */
import source from './notebook.json';

export interface ITemplateCell {
  kind: string;
  text: string[];
}

export interface ITemplate {
  sample: { about: string; load: string };
  folder: { about: string; load: string };
  cells: ITemplateCell[];
}

/** Cells as kind and text. `folder`: of pictures, with one subfolder for each class; null: the sample set. */
export function notebookCells(folder: string | null, template: ITemplate = source): { kind: string; text: string }[] {
  const parts = folder === null ? template.sample : template.folder;
  const fill = (s: string) =>
    s.split('{about}').join(parts.about).split('{load}').join(parts.load).split('{folder}').join(JSON.stringify(folder));
  return template.cells.map(c => ({ kind: c.kind, text: fill(c.text.join('\n')) }));
}

/** The same as a file of nbformat 4.5. `kernel`: its name and the one that is shown. */
export function notebookContent(folder: string | null, kernel: { name: string; display_name: string }): Record<string, unknown> {
  const cells = notebookCells(folder).map((c, i) => ({
    cell_type: c.kind,
    id: `step-${i}`,
    metadata: {},
    source: c.text,
    ...(c.kind === 'code' ? { execution_count: null, outputs: [] } : {})
  }));
  return { cells, metadata: { kernelspec: { ...kernel, language: 'python' } }, nbformat: 4, nbformat_minor: 5 };
}

/** The Workbench over a folder, or over the sample set (null), as a notebook of one cell. */
export function workbenchContent(folder: string | null, kernel: { name: string; display_name: string }): Record<string, unknown> {
  const data = folder === null ? 'sample_dls(size=128)' : JSON.stringify(folder);
  const source = `from fastai_tl.all import *\n\nWorkbench(${data})`;
  const cell = { cell_type: 'code', id: 'workbench', metadata: { jupyter: { source_hidden: true } }, source, execution_count: null, outputs: [] };
  return { cells: [cell], metadata: { kernelspec: { ...kernel, language: 'python' } }, nbformat: 4, nbformat_minor: 5 };
}
