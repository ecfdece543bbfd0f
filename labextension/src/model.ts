/** What the kernel says, and what is made of it: no browser and no Jupyter in here. */

/** What is being done to a Learner, as `fastai_tl.interface.jupyterlab.training_state` says it. */
export interface ITraining {
  who: string;
  note: string;
  stage?: string;
  number?: number;
  stages?: number;
  epoch?: number;
  epochs?: number;
  sweep?: boolean;
}

export interface ILearner {
  /** Differs between two Learners, also of the same name. */
  id: number;
  name: string;
  /** Share of the parameters that is frozen, 0 to 1. */
  frozen: number;
  training: ITraining | null;
}

/** The answer of `fastai_tl.interface.jupyterlab.look`. */
export interface ILook {
  version: string;
  learners: ILearner[];
  /** Names of DataLoaders. */
  data: string[];
  /** Python by tab, of the panels that are open. */
  code: Record<string, string>;
}

/** How an export has ended. */
export interface IExported {
  kind: 'exported';
  job: number;
  folder: string;
  error: string | null;
}

/** What the kernel tells without being asked. */
export type News = { kind: 'learners'; learners: ILearner[] } | IExported;

export const TABS = [
  { id: 'layers', label: 'Layers', caption: 'Which layers are frozen' },
  { id: 'rate', label: 'Learning rate', caption: 'Find a learning rate' },
  { id: 'plan', label: 'Plan', caption: 'The stages of training' },
  { id: 'train', label: 'Train', caption: 'Start, steer and watch training' },
  { id: 'evaluate', label: 'Evaluate', caption: 'How good the model is, and what it gets wrong' },
  { id: 'doctor', label: 'Doctor', caption: 'What is wrong, and the cure' }
] as const;

export type TabId = (typeof TABS)[number]['id'];

/** Why a question to the kernel has no answer. */
export class KernelError extends Error {
  constructor(
    message: string,
    /** 'missing': fastai_tl is not installed there; 'old': it is, without a side panel; 'other': Python's own error. */
    readonly reason: 'missing' | 'old' | 'other'
  ) {
    super(message);
  }
}

/** A value as a Python literal. */
export function py(value: string | number | boolean | null): string {
  if (value === null) {
    return 'None';
  }
  if (typeof value === 'boolean') {
    return value ? 'True' : 'False';
  }
  return JSON.stringify(value);
}

/** A call of a function of `fastai_tl.interface.jupyterlab` as an expression, which leaves no name behind. */
export function call(name: string, ...args: (string | number | boolean | null)[]): string {
  return `__import__('importlib').import_module('fastai_tl.interface.jupyterlab').${name}(${args.map(py).join(', ')})`;
}

interface IExpressionReply {
  status: string;
  data?: Record<string, unknown>;
  ename?: string;
  evalue?: string;
}

/** The value in an execute reply's `user_expressions.r`; null where Python had None. */
export function answerOf(reply: unknown): unknown {
  const r = (reply as { user_expressions?: { r?: IExpressionReply } }).user_expressions?.r;
  if (!r) {
    throw new KernelError('The kernel gave no answer.', 'other');
  }
  if (r.status === 'ok') {
    return r.data?.['application/json'] ?? null;
  }
  const text = r.evalue ?? r.ename ?? 'unknown';
  if (r.ename === 'ModuleNotFoundError' && /'fastai_tl'/.test(text)) {
    throw new KernelError(text, 'missing');
  }
  if ((r.ename === 'ModuleNotFoundError' && /'fastai_tl\./.test(text)) || r.ename === 'AttributeError') {
    throw new KernelError(text, 'old');
  }
  throw new KernelError(text, 'other');
}

/** '92 % frozen'; never 0 % or 100 % of what is only almost so. */
export function frozenText(share: number): string {
  if (share <= 0) {
    return 'nothing frozen';
  }
  if (share >= 1) {
    return 'all frozen';
  }
  const p = 100 * share;
  return `${p > 99 || p < 1 ? Math.min(Math.max(p, 0.1), 99.9).toFixed(1) : p.toFixed(0)} % frozen`;
}

/** 'fine-tune 2/3, epoch 4/6'. */
export function trainingText(t: ITraining): string {
  const parts: string[] = [];
  if (t.stage !== undefined) {
    parts.push(t.stages !== undefined && t.stages > 1 ? `${t.stage} ${t.number}/${t.stages}` : t.stage);
  }
  if (t.sweep) {
    parts.push('looking for a rate');
  } else if (t.epoch !== undefined) {
    parts.push(`epoch ${t.epoch}/${t.epochs}`);
  }
  if (parts.length) {
    return parts.join(', ');
  }
  return t.note ? (t.who === 'LRFinderPanel' || t.who === 'find_lr' ? `finding a rate, ${t.note}` : t.note) : `${t.who} is at work`;
}

/** What the status bar says: of the Learner that trains, else of the chosen one; '' of none. */
export function statusText(learners: ILearner[], chosen: string | null): string {
  const one = learners.find(o => o.training) ?? learners.find(o => o.name === chosen);
  if (!one) {
    return '';
  }
  const doing = one.training ? `${trainingText(one.training)} · ` : '';
  return `${learners.length > 1 ? `${one.name}: ` : ''}${doing}${frozenText(one.frozen)}`;
}

/** Which Learner to show: the one that was chosen, as long as there is one of that name; else the last that was made. */
export function choose(learners: ILearner[], chosen: string | null): string | null {
  if (learners.some(o => o.name === chosen)) {
    return chosen;
  }
  return learners.length ? learners[learners.length - 1].name : null;
}

/** What to put at a cursor so that text stands on lines of its own. `before`, `after`: the rest of its line. */
export function onLinesOfItsOwn(text: string, before: string, after: string): string {
  return (before.trim() ? '\n' : '') + text + (after.trim() ? '\n' : '');
}

/** The tab that an arrow key, Home or End leads to; null for other keys. */
export function tabAfter(key: string, now: TabId): TabId | null {
  const ids = TABS.map(t => t.id);
  const i = ids.indexOf(now);
  switch (key) {
    case 'ArrowRight':
      return ids[(i + 1) % ids.length];
    case 'ArrowLeft':
      return ids[(i + ids.length - 1) % ids.length];
    case 'Home':
      return ids[0];
    case 'End':
      return ids[ids.length - 1];
    default:
      return null;
  }
}

/** What comes after the last dot in a name that is not taken: 'a.ipynb', 'a-1.ipynb', … */
export function freeName(wanted: string, taken: string[]): string {
  const dot = wanted.lastIndexOf('.');
  const [stem, end] = dot > 0 ? [wanted.slice(0, dot), wanted.slice(dot)] : [wanted, ''];
  let name = wanted;
  for (let i = 1; taken.includes(name); i++) {
    name = `${stem}-${i}${end}`;
  }
  return name;
}

/** A path of the server as it is seen from a folder of it. */
export function relative(path: string, from: string): string {
  const parts = path.split('/').filter(p => p);
  const base = from.split('/').filter(p => p);
  let i = 0;
  while (i < base.length && i < parts.length && base[i] === parts[i]) {
    i++;
  }
  return [...base.slice(i).map(() => '..'), ...parts.slice(i)].join('/') || '.';
}
