/** Questions to a kernel that leave no trace in history, outputs or names. */
import type { Kernel } from '@jupyterlab/services';
import { answerOf, KernelError } from './model';

const TRIES = 5;

/** Value of a Python expression. Throws `KernelError`. `began`: called with the id of each message that is sent. */
export async function evaluate<T>(kernel: Kernel.IKernelConnection, expression: string, began?: (id: string) => void): Promise<T | null> {
  for (let i = 0; i < TRIES; i++) {
    const future = kernel.requestExecute({
      code: '',
      silent: true,
      store_history: false,
      allow_stdin: false,
      stop_on_error: false,
      user_expressions: { r: expression }
    });
    began?.(future.msg.header.msg_id);
    const reply = await future.done;
    // What waits behind a cell that failed is thrown away by the kernel: ask again.
    if (reply && (reply.content.status as string) !== 'aborted') {
      return answerOf(reply.content) as T | null;
    }
    await new Promise(resolve => setTimeout(resolve, 100 * (i + 1)));
  }
  throw new KernelError('The kernel did not answer.', 'other');
}

/** Whether a kernel speaks Python. */
export async function isPython(kernel: Kernel.IKernelConnection): Promise<boolean> {
  return (await kernel.info).language_info.name.toLowerCase() === 'python';
}
