"""Runs a child of test_distributed.py in two processes, as torchrun does, but forked from this one.

This one has imported everything. Usage: distributed_forks.py; each line of input, in JSON: MODULE PORT FOLDER
ARGUMENTS…; answers with both exit codes.
"""

import importlib
import json
import os
import sys
import traceback
from pathlib import Path

import accelerate  # noqa: F401
import distributed_cache_child  # noqa: F401
import distributed_child  # noqa: F401
import torch


def start(rank, module, port, folder, *args):
    "The process of one rank"
    if pid := os.fork():
        return pid
    os.environ.update(
        RANK=str(rank),
        LOCAL_RANK=str(rank),
        WORLD_SIZE="2",
        LOCAL_WORLD_SIZE="2",
        MASTER_ADDR="127.0.0.1",
        MASTER_PORT=str(port),
    )
    code = 1
    try:
        importlib.import_module(module).main(Path(folder), *args)
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def main():
    torch.set_num_threads(1)  # before anything is computed: no threads are lost in a fork
    print("ready", flush=True)
    for line in sys.stdin:
        pids = [start(rank, *json.loads(line)) for rank in (0, 1)]
        print(json.dumps([os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]), flush=True)


if __name__ == "__main__":
    main()
