"""Kill a process at its n-th file operation, for each n: one warm parent forks a child for each.

Counted are what Python does (open to write, write, truncate, flush to disk, rename, link, unlink, make and remove
folders) and what safetensors does in Rust; a write that is killed has written half.
"""

import builtins
import io
import os
import signal
import sys
import traceback

import safetensors.torch


def die():
    os.kill(os.getpid(), signal.SIGKILL)


class Operations:
    "Counts file operations of this process, and dies at number `at`; `None`: counts alone"

    def __init__(self, at=None):
        self.n, self.at = 0, at

    def due(self):
        self.n += 1
        return self.n == self.at

    def install(self):
        for name in "fsync replace rename link symlink unlink remove mkdir rmdir truncate ftruncate".split():
            setattr(os, name, self._before(getattr(os, name)))
        os.open = self._os_open(os.open)
        builtins.open = io.open = self._open(io.open)
        safetensors.torch.serialize_file = self._serialize(safetensors.torch.serialize_file)
        return self

    def _before(self, f):
        def call(*args, **kw):
            if self.due():
                die()
            return f(*args, **kw)

        return call

    def _os_open(self, f):
        def call(path, flags, *args, **kw):
            if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and self.due():
                die()
            return f(path, flags, *args, **kw)

        return call

    def _open(self, f):
        def call(file, mode="r", *args, **kw):
            if not set(mode) & set("wax+"):
                return f(file, mode, *args, **kw)
            if self.due():
                die()
            return _Written(f(file, mode, *args, **kw), self)

        return call

    def _serialize(self, f):
        def call(tensors, file, *args, **kw):
            if self.due():
                die()
            f(tensors, file, *args, **kw)
            if self.due():
                _truncate(file, os.path.getsize(file) // 2)
                die()
            if self.due():
                die()

        return call


_truncate = os.truncate  # not counted


class _Written:
    "A file that counts its writes; the one at which the process dies writes half"

    def __init__(self, file, operations):
        self.file, self.operations = file, operations

    def write(self, data):
        if self.operations.due():
            self.file.write(data[: len(data) // 2])
            self.file.flush()
            die()
        return self.file.write(data)

    def truncate(self, *args):
        if self.operations.due():
            die()
        return self.file.truncate(*args)

    def __getattr__(self, name):
        return getattr(self.file, name)

    def __enter__(self):
        self.file.__enter__()
        return self

    def __exit__(self, *args):
        return self.file.__exit__(*args)

    def __iter__(self):
        return iter(self.file)


def in_child(job, *args, at=None, count=False):
    """Run `job(*args)` in a forked child, and die at its operation `at`. Its exit status, negative if a signal ended
    it; with `count` the number of its operations
    """
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.close(read)
            operations = Operations(at).install() if at or count else None
            job(*args)
            if count:
                os.write(write, str(operations.n).encode())
            status = 0
        except BaseException:
            traceback.print_exc(file=sys.__stderr__)
            sys.__stderr__.flush()
        finally:
            os._exit(status)
    os.close(write)
    told = os.read(read, 100)
    os.close(read)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not count:
        return status
    assert status == 0
    return int(told)


def killed_at_each(job, check, folders, step=1, prepare=lambda folder: None):
    """Kill `job(folder)` at its 1st, (1 + step)th … operation, each time in a new folder that `prepare(folder)` fills,
    and see that `check(folder)` holds then, in a process of its own. How many kills there were, of how many operations
    """

    def new():
        folder = next(folders)
        folder.mkdir()
        prepare(folder)
        return folder

    n = in_child(job, new(), count=True)
    kills = 0
    for at in range(1, n + 1, step):
        folder = new()
        assert in_child(job, folder, at=at) == -signal.SIGKILL, f"operation {at} of {n} did not come"
        assert in_child(check, folder) == 0, f"killed at operation {at} of {n}: see the traceback above"
        kills += 1
    return kills, n
