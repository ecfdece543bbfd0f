import { deepStrictEqual as equal, throws } from 'node:assert/strict';
import { describe, it } from 'node:test';
import { answerOf, call, choose, freeName, frozenText, ILearner, ITraining, KernelError, onLinesOfItsOwn, py, statusText, tabAfter, TABS, trainingText, relative } from '../src/model';

const training = (t: Partial<ITraining> = {}): ITraining => ({ who: 'run_plan', note: '', ...t });
const learner = (name: string, frozen = 0.92, t: ITraining | null = null): ILearner => ({ id: name.length, name, frozen, training: t });
const reply = (r: unknown) => ({ status: 'ok', user_expressions: { r } });

void describe('Python literals', () => {
  void it('writes what Python reads', () => {
    equal([py(null), py(true), py(false), py(0.5), py('a"b\\\n')], ['None', 'True', 'False', '0.5', '"a\\"b\\\\\\n"']);
  });
  void it('calls a function without leaving a name', () => {
    equal(call('show', 'learn', 'plan'), '__import__(\'importlib\').import_module(\'fastai_tl.interface.jupyterlab\').show("learn", "plan")');
  });
});

void describe('answers', () => {
  void it('takes the JSON of a value, and null of None', () => {
    equal(answerOf(reply({ status: 'ok', data: { 'application/json': { a: 1 }, 'text/plain': 'x' } })), { a: 1 });
    equal(answerOf(reply({ status: 'ok', data: { 'text/plain': 'None' } })), null);
  });
  const reason = (ename: string, evalue: string) => {
    try {
      answerOf(reply({ status: 'error', ename, evalue }));
    } catch (e) {
      return [(e as KernelError).reason, (e as KernelError).message];
    }
    return [];
  };
  void it('tells a missing package from an old one and from other errors', () => {
    equal(reason('ModuleNotFoundError', "No module named 'fastai_tl'")[0], 'missing');
    equal(reason('ModuleNotFoundError', "import of 'fastai_tl' halted; None in sys.modules")[0], 'missing');
    equal(reason('ModuleNotFoundError', "No module named 'fastai_tl.interface.jupyterlab'")[0], 'old');
    equal(reason('AttributeError', "module 'fastai_tl.interface.jupyterlab' has no attribute 'look'")[0], 'old');
    equal(reason('ModuleNotFoundError', "No module named 'bqplot'")[0], 'other');
    equal(reason('Busy', 'TrainPanel is using this Learner.'), ['other', 'TrainPanel is using this Learner.']);
  });
  void it('is an error without an answer', () => {
    throws(() => answerOf({ status: 'aborted' }), KernelError);
  });
});

void describe('what is said', () => {
  void it('never rounds almost all to all', () => {
    equal([0, 0.0001, 0.31, 0.92, 0.9999, 1].map(frozenText), [
      'nothing frozen',
      '0.1 % frozen',
      '31 % frozen',
      '92 % frozen',
      '99.9 % frozen',
      'all frozen'
    ]);
  });
  void it('says stage and epoch', () => {
    equal(trainingText(training({ stage: 'fine-tune', number: 2, stages: 3, epoch: 4, epochs: 6 })), 'fine-tune 2/3, epoch 4/6');
    equal(trainingText(training({ stage: 'head', number: 1, stages: 1, epoch: 1, epochs: 6 })), 'head, epoch 1/6');
    equal(trainingText(training({ stage: 'head', number: 1, stages: 2, epoch: 1, epochs: 6, sweep: true })), 'head 1/2, looking for a rate');
    equal(trainingText(training({ who: 'fit', epoch: 2, epochs: 3 })), 'epoch 2/3');
    equal(trainingText(training({ who: 'LRFinderPanel', note: 'batch 3 of 100' })), 'finding a rate, batch 3 of 100');
    equal(trainingText(training({ who: 'export' })), 'export is at work');
  });
  void it('names the Learner in the status bar only among several', () => {
    const busy = learner('b', 0, training({ epoch: 2, epochs: 3 }));
    equal(statusText([], null), '');
    equal(statusText([learner('a')], 'a'), '92 % frozen');
    equal(statusText([learner('a'), busy], 'a'), 'b: epoch 2/3 · nothing frozen');
  });
});

void describe('choices', () => {
  void it('keeps the chosen Learner as long as there is one of that name', () => {
    equal(choose([learner('a'), learner('bb')], 'a'), 'a');
    equal(choose([learner('a'), learner('bb')], 'gone'), 'bb');
    equal(choose([], 'a'), null);
  });
  void it('walks through the tabs with arrows, round the ends', () => {
    equal(tabAfter('ArrowRight', 'layers'), 'rate');
    equal(tabAfter('ArrowLeft', 'layers'), 'doctor');
    equal(tabAfter('ArrowRight', 'doctor'), 'layers');
    equal([tabAfter('Home', 'plan'), tabAfter('End', 'plan'), tabAfter('x', 'plan')], ['layers', 'doctor', null]);
    equal(
      TABS.map(t => t.label),
      ['Layers', 'Learning rate', 'Plan', 'Train', 'Evaluate', 'Doctor']
    );
  });
  void it('puts text on lines of its own', () => {
    equal(onLinesOfItsOwn('x', '', ''), 'x');
    equal(onLinesOfItsOwn('x', 'a = 1', ''), '\nx');
    equal(onLinesOfItsOwn('x', '', 'a = 1'), 'x\n');
    equal(onLinesOfItsOwn('x', 'a', '= 1'), '\nx\n');
  });
  void it('finds a name that is free', () => {
    equal(freeName('a.ipynb', []), 'a.ipynb');
    equal(freeName('a.ipynb', ['a.ipynb', 'a-1.ipynb']), 'a-2.ipynb');
    equal(freeName('.hidden', ['.hidden']), '.hidden-1');
  });
});

void describe('paths', () => {
  void it('a folder as it is seen from the notebook', () => {
    equal(relative('work/pets', 'work'), 'pets');
    equal(relative('pets', 'work/deep'), '../../pets');
    equal(relative('work', 'work'), '.');
  });
});
