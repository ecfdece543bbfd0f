"""Kernels that start at once: forked from a process that has imported the kit.

The import is most of a kernel's start. `kernels.py serve SOCKET` imports everything and waits. `kernels.py start SOCKET
ARGUMENTS` is what Jupyter starts as the kernel: it asks for a fork that runs `ipykernel_launcher ARGUMENTS` in its
place, hands signals on to it, and ends when it ends; and the fork ends when this one is killed.
"""

import atexit
import json
import os
import signal
import socket
import sys
import threading


def serve(path):
    "Import, then fork a kernel for each connection"
    import bqplot  # noqa: F401
    import ipykernel.kernelapp  # noqa: F401
    import torch

    import fastai_tl.all  # noqa: F401

    torch.set_num_threads(1)  # no threads that a fork would lose
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # children that have ended are not waited for
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen(16)
        while True:
            link, _ = s.accept()
            text, fds, *_ = socket.recv_fds(link, 1 << 20, 3)
            if not os.fork():
                s.close()
                kernel(link, json.loads(text), fds)
            for fd in fds:
                os.close(fd)
            link.close()


def kernel(link, ask, fds):
    "In the fork: run a kernel as a process of its own would"
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    for fd, at in zip(fds, (0, 1, 2)):
        os.dup2(fd, at)
    for fd in fds:
        os.close(fd)
    os.setsid()
    os.environ.clear()
    os.environ.update(ask["env"])
    os.chdir(ask["cwd"])
    sys.argv = ["ipykernel_launcher", *ask["args"]]
    sys.path[0] = ""
    link.send(str(os.getpid()).encode())

    def end_with_it():
        while link.recv(1):
            pass
        os._exit(0)

    threading.Thread(target=end_with_it, daemon=True).start()
    try:
        from ipykernel import kernelapp

        kernelapp.launch_new_instance()
    finally:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def start(path, args):
    "In Jupyter's child: stand in for the kernel"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        socket.send_fds(s, [json.dumps(dict(args=args, env=dict(os.environ), cwd=os.getcwd())).encode()], [0, 1, 2])
        pid = int(s.recv(64))
        for sig in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sig, lambda n, _: os.kill(pid, n))
        while s.recv(64):
            pass  # until the other end is closed


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        start(sys.argv[2], sys.argv[3:])
