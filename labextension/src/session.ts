/** One notebook and its kernel: which Learners there are, which is shown, and whether the kernel has time. */
import type { ISessionContext } from '@jupyterlab/apputils';
import type { Kernel, KernelMessage } from '@jupyterlab/services';
import type { NotebookPanel } from '@jupyterlab/notebook';
import type { IDisposable } from '@lumino/disposable';
import { ISignal, Signal } from '@lumino/signaling';
import { evaluate, isPython } from './kernel';
import { call, choose, ILearner, ILook, KernelError, News, TabId } from './model';

/** 'none': no kernel; 'other': not Python; 'missing' and 'old': see `KernelError`; 'error': see `problem`. */
export type Standing = 'none' | 'starting' | 'ready' | 'other' | 'missing' | 'old' | 'error';

export class Session implements IDisposable {
  standing: Standing = 'none';
  problem = '';
  version = '';
  learners: ILearner[] = [];
  data: string[] = [];
  code: Record<string, string> = {};
  chosen: string | null = null;
  tab: TabId;
  /** A cell or another program keeps the kernel. */
  busy = false;
  /** A question waits for its answer. */
  slow = false;
  /** Counts kernels: what was shown of an earlier one is void. */
  life = 0;

  constructor(
    readonly notebook: NotebookPanel,
    tab: TabId,
    /** Seconds between two looks, at least. */
    private pace: () => number
  ) {
    this.tab = tab;
    const context = this.context;
    context.kernelChanged.connect(this.onKernel, this);
    context.statusChanged.connect(this.onStatus, this);
    context.iopubMessage.connect(this.onMessage, this);
    notebook.disposed.connect(this.dispose, this);
    this.begin(context.session?.kernel ?? null);
  }

  get context(): ISessionContext {
    return this.notebook.sessionContext;
  }

  get kernel(): Kernel.IKernelConnection | null {
    return this.context.session?.kernel ?? null;
  }

  /** Something of this session is not as it was. */
  get changed(): ISignal<this, void> {
    return this._changed;
  }

  get news(): ISignal<this, News> {
    return this._news;
  }

  get isDisposed(): boolean {
    return this._disposed;
  }

  dispose(): void {
    if (this._disposed) {
      return;
    }
    this._disposed = true;
    window.clearTimeout(this.timer);
    Signal.clearData(this);
  }

  /** Value of an expression, when the kernel has time for it. */
  async ask<T>(expression: string): Promise<T | null> {
    const kernel = this.kernel;
    if (!kernel) {
      throw new KernelError('This notebook has no kernel.', 'other');
    }
    const timer = window.setTimeout(() => this.setSlow(true), 1000);
    try {
      return await evaluate<T>(kernel, expression, id => {
        this.own.add(id);
        if (this.own.size > 200) {
          this.own.delete(this.own.values().next().value as string);
        }
      });
    } finally {
      window.clearTimeout(timer);
      this.setSlow(false);
    }
  }

  private setSlow(slow: boolean): void {
    if (this.slow !== slow && !this._disposed) {
      this.slow = slow;
      this._changed.emit();
    }
  }

  /** Ask soon what there is; the last of several wishes counts. */
  look(): void {
    window.clearTimeout(this.timer);
    const wait = Math.max(0, this.looked + 1000 * this.pace() - Date.now());
    this.timer = window.setTimeout(() => void this.lookNow(), wait);
  }

  private async lookNow(): Promise<void> {
    const [kernel, life] = [this.kernel, this.life];
    if (this._disposed || !kernel || this.busy || kernel.status === 'dead') {
      return; // after a busy kernel comes another look
    }
    if (this.looking) {
      this.again = true;
      return;
    }
    this.looking = true;
    this.looked = Date.now();
    try {
      if (!(await isPython(kernel))) {
        this.settle('other');
        return;
      }
      const found = await this.ask<ILook>(call('look', this.pace(), this.chosen));
      if (life !== this.life || this._disposed) {
        return;
      }
      this.version = found?.version ?? '';
      this.data = found?.data ?? [];
      this.code = found?.code ?? {};
      this.setLearners(found?.learners ?? []);
      this.settle('ready');
    } catch (e) {
      if (life === this.life && !this._disposed) {
        this.setLearners([]);
        const reason = e instanceof KernelError ? e.reason : 'other';
        this.settle(reason === 'other' ? 'error' : reason, String((e as Error).message ?? e));
      }
    } finally {
      this.looking = false;
      if (this.again) {
        this.again = false;
        this.look();
      }
    }
  }

  private setLearners(learners: ILearner[]): void {
    this.learners = learners;
    const shown = choose(learners, this.chosen);
    if (shown !== null) {
      this.chosen = shown; // a name stays chosen when its Learner is gone, and is found again after a restart
    }
  }

  /** The Learner that is shown, if there is one. */
  get learner(): ILearner | null {
    return this.learners.find(o => o.name === this.chosen) ?? null;
  }

  private settle(standing: Standing, problem = ''): void {
    this.standing = standing;
    this.problem = problem;
    this._changed.emit();
  }

  private begin(kernel: Kernel.IKernelConnection | null): void {
    this.life++;
    this.own.clear();
    this.looking = this.again = false;
    this.learners = [];
    this.data = [];
    this.busy = kernel?.status === 'busy';
    if (!kernel) {
      this.settle('none');
      return;
    }
    kernel.registerCommTarget('fastai-tl', () => undefined); // read in `onMessage`
    this.settle('starting');
    this.look();
  }

  /** The kernel's channel may be older than this page: it is known by what it says. */
  private onChannel(content: { data?: Record<string, unknown> }): void {
    const kind = content.data?.kind;
    if (kind === 'learners' || kind === 'exported') {
      this.onNews(content.data as unknown as News);
    }
  }

  private onNews(news: News): void {
    if (news.kind === 'learners') {
      this.setLearners(news.learners);
      this.settle('ready');
    }
    this._news.emit(news);
  }

  private onKernel(): void {
    this.begin(this.kernel);
  }

  private onStatus(_: unknown, status: Kernel.Status): void {
    if (status === 'restarting' || status === 'autorestarting') {
      this.restarting = true;
      this.learners = [];
      this.settle('starting');
    } else if (status === 'idle' && this.restarting) {
      this.restarting = false;
      this.begin(this.kernel);
    } else if (status === 'dead') {
      this.begin(null);
    } else if (status === 'idle' && this.busy && !this.keeper) {
      this.busy = false; // it was so before this page came
      this._changed.emit();
      this.look();
    }
  }

  private onMessage(_: unknown, msg: KernelMessage.IMessage): void {
    if (msg.header.msg_type === 'comm_msg') {
      this.onChannel(msg.content as { data?: Record<string, unknown> });
    }
    if (msg.header.msg_type !== 'status') {
      return;
    }
    const parent = msg.parent_header as Partial<KernelMessage.IHeader>;
    const state = (msg.content as { execution_state: string }).execution_state;
    if (!parent.msg_id || this.own.has(parent.msg_id)) {
      return;
    }
    if (parent.msg_type === 'execute_request') {
      this.keeper = state === 'busy' ? parent.msg_id : '';
      if (this.busy !== (state === 'busy')) {
        this.busy = state === 'busy';
        this._changed.emit();
      }
    }
    if (state === 'idle' && (parent.msg_type === 'execute_request' || parent.msg_type === 'comm_msg')) {
      this.look();
    }
  }

  private own = new Set<string>();
  private keeper = '';
  private restarting = false;
  private looking = false;
  private again = false;
  private looked = 0;
  private timer = 0;
  private _disposed = false;
  private _changed = new Signal<this, void>(this);
  private _news = new Signal<this, News>(this);
}
