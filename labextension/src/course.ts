/** The page of the course: what is passed, and a button that goes on. */
import type { JupyterFrontEnd } from '@jupyterlab/application';
import { UUID } from '@lumino/coreutils';
import { Widget } from '@lumino/widgets';
import { pythonSpec } from './create';
import { button, el } from './dom';
import { evaluate } from './kernel';
import { call, KernelError } from './model';
import { INSTALL } from './view';

interface ILesson {
  number: number;
  name: string;
  title: string;
  minutes: number;
  file: string;
  /** Copied already. */
  here: boolean;
  exercises: number;
  passed: number;
  tried: number;
}

interface ICourse {
  folder: string;
  lessons: ILesson[];
  passed: number;
  exercises: number;
  next: string | null;
}

/** Lessons live in the Python package, so a kernel is asked for them; it ends with the question. */
export class CoursePage extends Widget {
  constructor(
    private app: JupyterFrontEnd,
    /** The folder in which the course is, or is to be. */
    private cwd: string,
    /** Its name. */
    private folder: string
  ) {
    super();
    this.addClass('ftl-Course');
    this.node.tabIndex = 0;
    this.load();
  }

  /** Ask how far one is, and show it. */
  load(): void {
    void this.run('course');
  }

  protected override onAfterShow(): void {
    if (this.course && !this.running) {
      this.load(); // a lesson may have been done meanwhile
    }
  }

  private async run(what: 'course' | 'start_course', then?: string): Promise<void> {
    if (this.running) {
      this.next = what === 'course' ? this.next : [what, then]; // a press waits for its turn; one more look is none
      return;
    }
    this.running = true;
    this.draw(what === 'course' ? 'Looking at the lessons …' : `Copying the lessons into ${this.folder}/ …`);
    try {
      this.course = await this.ask(call(what, this.folder));
      this.running = false;
      this.draw();
      if (then) {
        await this.app.commands.execute('docmanager:open', { path: this.path(then) });
      }
    } catch (e) {
      this.running = false;
      const missing = e instanceof KernelError && e.reason !== 'other';
      const text = missing ? 'fastai_tl is not installed in the Python that this server starts. In a notebook, run:' : `The lessons could not be read: ${(e as Error).message}`;
      this.draw(null, el('p', {}, text), missing ? el('pre', {}, INSTALL) : null, button('Try again', 'Ask once more', () => this.load()));
    }
    const { next } = this;
    this.next = null;
    if (next) {
      await this.run(...next);
    }
  }

  private async ask(expression: string): Promise<ICourse> {
    const { kernelspecs, sessions } = this.app.serviceManager;
    await kernelspecs.ready;
    const path = `${this.cwd ? `${this.cwd}/` : ''}fastai-tl-${UUID.uuid4()}`;
    const session = await sessions.startNew({ path, name: 'fastai_tl lessons', type: 'console', kernel: { name: pythonSpec(kernelspecs.specs).name } });
    try {
      if (!session.kernel) {
        throw new KernelError('Python could not be started.', 'other');
      }
      const answer = await evaluate<ICourse>(session.kernel, expression);
      if (!answer) {
        throw new KernelError('Python gave no answer.', 'other');
      }
      return answer;
    } finally {
      await session.shutdown();
      session.dispose();
    }
  }

  private path(file: string): string {
    return [this.cwd, this.folder, file].filter(s => s).join('/');
  }

  private start(file: string, here: boolean): void {
    if (here) {
      void this.app.commands.execute('docmanager:open', { path: this.path(file) });
    } else {
      void this.run('start_course', file);
    }
  }

  private draw(busy: string | null = null, ...problem: (Node | null)[]): void {
    const c = this.course;
    const next = c?.lessons.find(o => o.file === c.next);
    const begun = c?.lessons.some(o => o.here) ?? false;
    const rows = (c?.lessons ?? []).map(o => {
      const done = o.passed === o.exercises;
      const word = done ? 'Open' : o.tried ? 'Continue' : 'Start';
      const label = `${word} lesson ${o.number}`;
      const b = button(word, label, () => this.start(o.file, o.here));
      b.setAttribute('aria-label', label);
      return el(
        'li',
        { class: done ? 'ftl-Lesson ftl-mod-done' : 'ftl-Lesson' },
        el('span', { class: 'ftl-Lesson-number', 'aria-hidden': 'true' }, done ? '✓' : String(o.number)),
        el(
          'span',
          { class: 'ftl-Lesson-text' },
          el('b', {}, o.title),
          el('span', { class: 'ftl-Lesson-about' }, `${o.minutes} minutes · ${o.passed} of ${o.exercises} exercises passed`),
          el('progress', { max: String(o.exercises), value: String(o.passed), 'aria-label': `Exercises passed in lesson ${o.number}` })
        ),
        b
      );
    });
    this.node.replaceChildren(
      el('h1', {}, 'Transfer learning: the course'),
      el('p', {}, 'Eight lessons that run on this computer, without the internet. Exercises check themselves; what you have passed is noted in a file beside the lessons.'),
      ...(c && next
        ? [
            el(
              'p',
              { class: 'ftl-Course-next' },
              button(begun ? `Continue with ${next.number} ${next.title}` : 'Start the course', 'Open the first lesson that is not done', () => this.start(next.file, next.here)),
              el('span', {}, `${c.passed} of ${c.exercises} exercises passed`)
            )
          ]
        : c
          ? [el('p', { class: 'ftl-Course-next' }, 'All exercises are passed.')]
          : []),
      el('div', { class: 'ftl-Course-state', role: 'status' }, busy ?? '', ...problem.filter(p => p !== null)),
      el('ol', {}, ...rows),
      ...(c && begun
        ? [
            el(
              'p',
              {},
              button('Cheat sheet', 'One page to keep at hand', () => this.start('cheatsheet.md', true)),
              ' ',
              button('Glossary', 'The words of the field', () => this.start('glossary.md', true)),
              ' ',
              button('Refresh', 'Read the progress once more', () => this.load())
            )
          ]
        : [])
    );
  }

  private course: ICourse | null = null;
  /** What was pressed while the lessons were read. */
  private next: ['course' | 'start_course', string | undefined] | null = null;
  private running = false;
}
