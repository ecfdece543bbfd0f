from dataclasses import replace
from pathlib import Path

import pytest

from fastai_tl.core.settings import Settings, SettingsError, load_settings, settings_text

REPO = Path(__file__).parents[2]


def test_the_repositorys_file_holds_the_defaults():
    assert (REPO / "settings.ini").read_text() == settings_text()
    s = load_settings(REPO / "nbs" / "api")
    assert s.file == REPO / "settings.ini" and replace(s, file=None) == Settings()


def test_nearest_file_wins_and_foreign_files_are_passed_over(tmp_path):
    (tmp_path / "settings.ini").write_text("[fastai_tl]\nseed = 3\n")
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "settings.ini").write_text("[DEFAULT]\nlib_name = other\n")
    assert load_settings(tmp_path / "a" / "b").seed == 3
    (tmp_path / "a" / "b" / "settings.ini").write_text("[other]\nx=1\n[fastai_tl]\nseed = 4\n")
    assert load_settings(tmp_path / "a" / "b").seed == 4


@pytest.mark.parametrize(
    "line, key",
    [
        ("sice = 96", "sice"),
        ("size = big", "size"),
        ("size = 5", "size"),
        ("offline = perhaps", "offline"),
        ("memory_limit = 2", "memory_limit"),
        ("backbone =", "backbone"),
        ("sample = flowers", "sample"),
        ("seed = -1", "seed"),
        ("epochs = 0", "epochs"),
        ("just words", "just words"),
        ("seed = 1\nseed = 2", "seed"),
    ],
)
def test_errors_name_key_file_and_allowed_values(tmp_path, line, key):
    (tmp_path / "settings.ini").write_text(f"[fastai_tl]\n{line}\n")
    with pytest.raises(SettingsError) as e:
        load_settings(tmp_path)
    assert key in str(e.value) and str(tmp_path / "settings.ini") in str(e.value)
    assert e.value.allowed and (e.value.key is None or e.value.key == key)
