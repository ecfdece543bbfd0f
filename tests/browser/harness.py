"""Servers and kernels for tests in a browser; the fixtures over them are in conftest.py."""

import ast
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

import nbformat
from jupyter_client import BlockingKernelClient

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
NO_CHROMIUM = (
    f"No Chromium was found: install one ({', '.join(NAMES)}; on Debian: apt-get install chromium) or set "
    "CHROMIUM=its path"
)
TOKEN = "for-tests"
# forked from a process that has imported the kit; as a user's
KERNELS = dict(python3="Python 3", cold="Python 3 from the start")
# where a wheel would put it, an editable installation puts nothing
EXTENSION = Path(__file__).parents[2] / "labextension" / "dist"


def chromium():
    "Path of the browser: CHROMIUM, or what is installed; `None`: there is none"
    if given := os.environ.get("CHROMIUM"):
        return shutil.which(given)
    return next((p for n in NAMES if (p := shutil.which(n))), None)


def until(f, seconds=60, what="condition"):
    "Call `f` until it returns something true, and return that"
    end = time.monotonic() + seconds
    while True:
        if r := f():
            return r
        assert time.monotonic() < end, f"{what} was not met in {seconds} s; last: {r!r}"
        time.sleep(0.05)


def learner_cell(name="learn", size=64, bs=8, n_per_class=6, arch="resnet_mini"):
    "Code of a cell that builds a small Learner on real pictures, without any download"
    return f"""from fastai_tl.datasets.samples import sample_dls
from fastai_tl.models.transfer_learner import transfer_learner
{name} = transfer_learner(sample_dls("clipart", size={size}, bs={bs}, n_per_class={n_per_class}), "{arch}")"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def kernelspec(base: Path, name: str, *argv: str):
    "Tell Jupyter of a kernel that is started by this command"
    spec = base / "share" / "kernels" / name
    spec.mkdir(parents=True, exist_ok=True)
    (spec / "kernel.json").write_text(
        json.dumps(
            dict(
                argv=[*argv, "-f", "{connection_file}"],
                display_name=KERNELS.get(name, name),
                language="python",
                metadata={},
            )
        )
    )


def private_env(base: Path):
    "An environment in which Jupyter reads and writes only below `base`"
    folders = dict(
        JUPYTER_CONFIG_DIR="cfg",
        JUPYTER_DATA_DIR="data",
        JUPYTER_RUNTIME_DIR="run",
        JUPYTER_PATH="share",
        JUPYTERLAB_SETTINGS_DIR="settings",
        JUPYTERLAB_WORKSPACES_DIR="workspaces",
        IPYTHONDIR="ipython",
        MPLCONFIGDIR="mpl",
    )
    return {
        **os.environ,
        **{k: str(base / v) for k, v in folders.items()},
        "JUPYTER_PREFER_ENV_PATH": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONWARNINGS": "ignore",
    }


class Forks:
    "A process that has imported the kit and forks kernels (kernels.py)"

    def __init__(self, base: Path):
        self.folder = tempfile.mkdtemp()  # the name of a socket must be short
        self.log = base / "kernels.log"
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*self.command("serve")],
                env=private_env(base),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def command(self, what):
        return sys.executable, str(Path(__file__).with_name("kernels.py")), what, f"{self.folder}/socket"

    def ready(self):
        "Wait until kernels can be started"

        def up():
            if self.process.poll() is not None:
                raise RuntimeError(f"{self.process.args} ended:\n{self.log.read_text()}")
            return Path(self.folder, "socket").exists()

        until(up, 120, "start of the process that forks kernels")

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder)


class Server:
    """A process that serves `root`; kernels come from `forks`, or start as a user's do (`None`). Its log is shown if it
    does not start
    """

    def __init__(self, base: Path, root: Path, forks: Forks | None, module: str, ready: str, *args: str):
        self.base, self.root, self.port = base, root, free_port()
        root.mkdir(parents=True, exist_ok=True)
        cold = sys.executable, "-m", "ipykernel_launcher"
        kernelspec(base, "cold", *cold)
        kernelspec(base, "python3", *(forks.command("start") if forks else cold))
        self.url, self.log = f"http://127.0.0.1:{self.port}", base / f"{module}.log"
        cmd = [sys.executable, "-m", module, *(a.format(port=self.port, root=root, token=TOKEN) for a in args)]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                cmd, env=private_env(base), cwd=root, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        until(lambda: self._up(ready), 90, f"start of {module}")
        if forks:
            forks.ready()

    def _up(self, path):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.process.args} ended:\n{self.log.read_text()}")
        try:
            self.open(path)
        except OSError:
            return False
        return True

    def open(self, path, method="GET", data=None):
        "Answer of the server's own interface, as bytes"
        body = None if data is None else json.dumps(data).encode()
        req = urllib.request.Request(self.url + path, body, {"Authorization": f"token {TOKEN}"}, method=method)
        with urllib.request.urlopen(req, timeout=10) as r:
            return r.read()

    def api(self, path, method="GET", data=None):
        "Answer of the server's own interface, from JSON"
        text = self.open(path, method, data)
        return json.loads(text) if text else None

    def notebook(self, name, *cells, kernel="python3", **metadata):
        "Write a notebook with these cells of code into the served folder; returns `name`"
        kernel = dict(name=kernel, display_name=KERNELS[kernel], language="python")
        nb = nbformat.v4.new_notebook(
            cells=[nbformat.v4.new_code_cell(c) for c in cells], metadata=dict(kernelspec=kernel, **metadata)
        )
        nbformat.write(nb, self.root / name)
        return name

    def connection(self, kernel_id):
        return self.base / "run" / f"kernel-{kernel_id}.json"

    def close(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


class Lab(Server):
    "JupyterLab 4 and Notebook 7 on one server with its own settings"

    def __init__(self, base: Path, forks: Forks | None = None):
        conf = base / "cfg" / "labconfig"
        conf.mkdir(parents=True)
        (conf / "default_setting_overrides.json").write_text(
            json.dumps(
                {
                    "@jupyterlab/apputils-extension:notification": dict(
                        fetchNews="false", checkForUpdates=False, doNotDisturbMode=True
                    )
                }
            )
        )
        super().__init__(
            base,
            base / "root",
            forks,
            "jupyterlab",
            "/api/status",
            "--no-browser",
            "--allow-root",
            "--ip=127.0.0.1",
            "--port={port}",
            "--ServerApp.port_retries=0",
            "--IdentityProvider.token={token}",
            "--ServerApp.root_dir={root}",
            "--LabApp.expose_app_in_browser=True",
            "--JupyterNotebookApp.expose_app_in_browser=True",
            "--LabApp.extension_manager=readonly",
            f"--LabServerApp.extra_labextensions_path={EXTENSION}",
        )

    def sessions(self, name=None):
        return [s for s in self.api("/api/sessions") if name in (None, s["path"])]

    def kernel(self, name):
        "The kernel of a notebook that is open"
        return Kernel(self, until(lambda: self.sessions(name), what=f"a kernel of {name}")[0]["kernel"]["id"])

    def shutdown(self):
        "End all kernels"
        for s in self.sessions():
            self.api(f"/api/sessions/{s['id']}", "DELETE")


class VoilaServer(Server):
    "Voila over the notebooks of a folder: pages of their outputs, without code"

    def __init__(self, base: Path, forks: Forks | None = None):
        super().__init__(
            base,
            base / "root",
            forks,
            "voila",
            "/",
            "{root}",
            "--no-browser",
            "--Voila.ip=127.0.0.1",
            "--port={port}",
            f"--Voila.connection_dir_root={base}",
        )

    def kernel(self):
        "The kernel of the page opened last"
        files = sorted(self.base.glob("voila_*/kernel-*.json"), key=lambda p: p.stat().st_mtime)
        return Kernel(self, files[-1].stem.removeprefix("kernel-"))

    def connection(self, kernel_id):
        return next(self.base.glob(f"voila_*/kernel-{kernel_id}.json"))


class Kernel:
    "A second client of a running kernel, which reads its state and leaves outputs and history alone"

    def __init__(self, server: Server, kernel_id: str):
        self.server, self.id = server, kernel_id
        self.client = BlockingKernelClient(connection_file=str(server.connection(kernel_id)))
        self.client.load_connection_file()
        self.client.start_channels()

    def ev(self, expr, seconds=60):
        "Value of a Python expression, by way of JSON; waits while a cell runs"
        ask = {"r": f"__import__('json').dumps({expr})"}

        def reply():
            r = self.client.execute(
                "", silent=True, store_history=False, user_expressions=ask, reply=True, timeout=seconds
            )["content"]
            # what comes right after a cell that failed is thrown away
            return None if r["status"] == "aborted" else r["user_expressions"]["r"]

        r = until(reply, seconds, expr)
        assert r["status"] == "ok", "\n".join(r["traceback"])
        return json.loads(ast.literal_eval(r["data"]["text/plain"]))

    def run(self, code, seconds=120):
        "Execute code without history; raises its error"
        r = self.client.execute(code, silent=False, store_history=False, reply=True, timeout=seconds)["content"]
        assert r["status"] == "ok", "\n".join(r["traceback"])

    def interrupt(self):
        "As the square button of the toolbar does"
        self.server.api(f"/api/kernels/{self.id}/interrupt", "POST")

    @property
    def state(self):
        return self.server.api(f"/api/kernels/{self.id}")["execution_state"]

    def close(self):
        self.client.stop_channels()
