import { deepStrictEqual as equal, doesNotMatch, match, ok } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { notebookCells, notebookContent, workbenchContent } from '../src/template';

void describe('the notebook to begin with', () => {
  void it('has the six steps, filled in', () => {
    const text = notebookCells(null)
      .map(c => c.text)
      .join('\n');
    ok(text.includes('dls = sample_dls()'));
    doesNotMatch(text, /\{(about|load|folder)\}/);
    for (const i of [1, 2, 3, 4, 5, 6]) {
      match(text, new RegExp(`(## |, )${i} [A-Za-z]`));
    }
  });
  void it('quotes a folder', () => {
    ok(notebookCells('my "pets"\\x').some(c => c.text.startsWith('dls = folder_dls("my \\"pets\\"\\\\x")')));
  });
  void it('is a notebook of nbformat 4.5 with its kernel', () => {
    interface IFile {
      cells: { id: string; cell_type: string; outputs?: unknown[] }[];
      metadata: unknown;
      nbformat_minor: number;
    }
    const nb = notebookContent(null, { name: 'py', display_name: 'Py' }) as unknown as IFile;
    equal(nb.metadata, { kernelspec: { name: 'py', display_name: 'Py', language: 'python' } });
    equal(nb.nbformat_minor, 5);
    equal(new Set(nb.cells.map(c => c.id)).size, nb.cells.length);
    ok(nb.cells.every(c => (c.cell_type === 'code') === (c.outputs !== undefined)));
  });
});

void describe('the Workbench', () => {
  void it('the Workbench is one cell, over a folder or the sample set', () => {
    const source = (folder: string | null) => (workbenchContent(folder, { name: 'python3', display_name: 'Python 3' }).cells as { source: string }[]).map(c => c.source);
    equal(source('my "pets"'), ['from fastai_tl.all import *\n\nWorkbench("my \\"pets\\"")']);
    equal(source(null).length, 1);
  });
});
