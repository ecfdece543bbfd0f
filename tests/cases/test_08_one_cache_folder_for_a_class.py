"One cache folder for a class: permissions are those that the umask asks for, and other users read what is there."

import os
import shutil
import stat
import tempfile
from contextlib import contextmanager
from pathlib import Path

import pytest
from helpers import QUIET, fit, still_learner

from fastai_tl.cache.callback import frozen_cache
from fastai_tl.cache.store import DiskStore
from fastai_tl.core.errors import FileError, KitWarning
from fastai_tl.core.files import write_text
from fastai_tl.core.progress import quiet
from fastai_tl.core.settings import SettingsError
from fastai_tl.datasets.samples import sample_path
from fastai_tl.deploy.staged_folder import staged_folder

needs_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="becomes another user")


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture
def shared():
    "A folder that every user can reach and only its owner can write to"
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture(params=[0o002, 0o027])
def umask(request):
    old = os.umask(request.param)
    yield request.param
    os.umask(old)


@contextmanager
def another_user():
    "Inside, files are opened with the rights of the user nobody"
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(65534)
    os.seteuid(65534)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


def settings(folder):
    Path("settings.ini").write_text(f"[fastai_tl]\ncache_folder = {folder}\n")


def test_what_is_made_has_the_permissions_that_the_umask_asks_for(tmp_path, umask):
    settings(tmp_path / "shared")
    digits = sample_path("digits")
    with frozen_cache(learn := still_learner(), store=tmp_path / "feats", on_progress=QUIET):
        fit(learn, 1)
    with staged_folder(tmp_path / "model", False) as new:
        (new / "model.json").write_text("{}")
        (new / "model.json").chmod(0o600)  # as safetensors leaves its files
    write_text(tmp_path / "plan.yaml", "")
    tables = list((tmp_path / "feats").iterdir())
    assert len(tables) == 2
    folders = [tmp_path / "shared", digits, digits / "0", *tables, tmp_path / "model"]
    files = [digits / "0" / "0000.png", *tables[0].iterdir(), tmp_path / "model" / "model.json", tmp_path / "plan.yaml"]
    assert {mode(f) for f in folders} == {0o777 & ~umask} and {mode(f) for f in files} == {0o666 & ~umask}


@needs_root
def test_another_user_reads_the_digits_or_is_told_what_to_do(shared, monkeypatch):
    monkeypatch.chdir(shared)
    settings(shared / "class")
    digits = sample_path("digits")
    with another_user():
        assert len(list(sample_path("digits").glob("*/*.png"))) == 1797
    digits.chmod(0o700)
    with another_user(), pytest.raises(FileError, match="chmod.*") as e:
        sample_path("digits")
    assert "cache_folder" in str(e.value)
    Path("settings.ini").chmod(0o600)
    with another_user(), pytest.raises(SettingsError, match="cannot be read"):
        sample_path("digits")


def features(store):
    "Whether features were made"
    with frozen_cache(learn := still_learner(), store=store, on_progress=QUIET) as c, quiet(learn):
        learn.validate()
        return c.seconds > 0


@needs_root
def test_another_user_takes_stored_features_and_goes_on_where_they_cannot_be_kept(shared, monkeypatch):
    monkeypatch.chdir(shared)
    store = shared / "feats"
    assert features(store)
    with another_user():
        assert not features(store)
    made = next(store.iterdir())
    made.chmod(0o700)
    with another_user(), pytest.warns(KitWarning) as said:
        assert features(store)
    said = " ".join(str(w.message) for w in said)
    assert "cannot be read" in said and "not kept" in said
    with another_user(), pytest.raises(FileError, match="Features cannot be kept"):
        features(shared / "new")
    assert DiskStore(store).load(made.name, 10**9) is not None


def test_a_file_in_the_way_of_the_cache_folder(tmp_path):
    (tmp_path / "file").touch()
    settings(tmp_path / "file" / "cache")
    with pytest.raises(FileError, match="cache_folder"):
        sample_path("digits")
