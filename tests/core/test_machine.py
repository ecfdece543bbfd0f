"Memory of a container, of both versions of control groups."

import pytest

from fastai_tl.core.machine import _group_limits, memory_allowed, memory_total

V2 = "30 25 0:26 {root} /sys/fs/cgroup rw,nosuid,nodev - cgroup2 cgroup2 rw,nsdelegate\n"
V1 = (
    "31 25 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
    "32 25 0:28 {root} /sys/fs/cgroup/memory rw,nosuid shared:9 - cgroup cgroup rw,memory\n"
)


def limits(top, groups, mounts, files):
    (top / "proc/self").mkdir(parents=True)
    (top / "proc/self/cgroup").write_text(groups)
    (top / "proc/self/mountinfo").write_text("22 1 8:1 / / rw - ext4 /dev/sda1 rw\n" + mounts)
    for f, text in files.items():
        f = top / "sys/fs/cgroup" / f
        f.parent.mkdir(parents=True, exist_ok=True)
        f.write_text(text)
    return sorted(_group_limits(top))


GROUPS = "4:memory:{0}\n3:cpu,cpuacct:/other\n1:name=systemd:/\n0::/\n"


@pytest.mark.parametrize(
    "groups, mounts, files, want",
    [
        # a container sees its own group as the root
        ("0::/\n", V2.format(root="/"), {"memory.max": "536870912\n"}, [2**29]),
        # a job of systemd or SLURM: the smallest on the way up counts
        ("0::/a/b\n", V2.format(root="/"), {"a/b/memory.max": "max\n", "a/memory.max": "1024\n"}, [1024]),
        ("0::/a/b\n", V2.format(root="/"), {"a/b/memory.max": "9\n", "a/memory.max": "1024\n"}, [9, 1024]),
        # Docker with version 1 mounts the container's group and names it from the host's root
        (GROUPS.format("/docker/7f"), V1.format(root="/docker/7f"), {"memory/memory.limit_in_bytes": "77\n"}, [77]),
        (GROUPS.format("/job"), V1.format(root="/"), {"memory/job/memory.limit_in_bytes": "78\n"}, [78]),
        # no limit, and no such files
        (GROUPS.format("/"), V1.format(root="/"), {}, []),
        ("0::/\n", V2.format(root="/"), {"memory.max": "max\n"}, []),
    ],
)
def test_limits_of_control_groups(tmp_path, groups, mounts, files, want):
    assert limits(tmp_path, groups, mounts, files) == want


def test_another_system_has_none(tmp_path):
    assert list(_group_limits(tmp_path)) == []


def test_a_quarter_of_the_memory_at_most(monkeypatch):
    import fastai_tl.core.machine as m

    assert memory_allowed(1000) == 1000 and 2**20 < memory_total() < 2**50
    monkeypatch.setattr(m, "_group_limits", lambda: [400 * 2**20])
    assert memory_total() == 400 * 2**20 and memory_allowed(2 * 2**30) == 100 * 2**20


def test_the_feature_cache_takes_no_more_than_that(monkeypatch):
    import fastai_tl.cache.feature_cache as fc
    import fastai_tl.core.machine as m
    from helpers import still_learner

    monkeypatch.setattr(m, "_group_limits", lambda: [400 * 2**20])
    learn = still_learner()
    assert fc.FrozenCache(learn, fc.CachePolicy()).limit == 100 * 2**20
    assert fc.FrozenCache(learn, fc.CachePolicy(memory_limit=2**30)).limit == 2**30  # as it was asked for


@pytest.fixture
def without_home(monkeypatch):
    monkeypatch.setattr("os.path.expanduser", lambda p: p)  # as for a user that the system does not know


def test_a_user_without_a_home_folder(without_home, monkeypatch):
    from fastai_tl.core.errors import FileError, KitWarning
    from fastai_tl.datasets import samples
    from fastai_tl.datasets.picture_folder import read_folder
    from fastai_tl.training.checkpoint import FolderStore

    monkeypatch.setattr(samples, "_temporary", {})
    with pytest.warns(KitWarning, match="no home folder.*cache_folder"):
        digits = samples.sample_path("digits")
    assert len(list(digits.glob("*/*.png"))) == 1797 and samples.sample_path("digits") == digits  # warns once
    for use in (FolderStore, read_folder):
        with pytest.raises(FileError, match="no home folder"):
            use("~/x")


def test_a_home_folder_that_cannot_be_written(tmp_path, monkeypatch):
    from fastai_tl.core.errors import FileError, KitWarning
    from fastai_tl.datasets import samples

    (tmp_path / "home").touch()  # nothing can be made in a file, even by root
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(samples, "_temporary", {})
    with pytest.warns(KitWarning, match="until this process ends"):
        assert samples.sample_path("digits").is_dir()
    (tmp_path / "settings.ini").write_text("[fastai_tl]\ncache_folder = $HOME/cache\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileError, match="Set cache_folder"):
        samples.sample_path("digits")
