import os

import pytest

from data_gen.files import expand, replacing, walk, write_atomically


def found(folder):
    return [os.path.join(place, name) for place, _, names in walk(folder) for name in names]


def test_links_are_followed_loops_end_and_each_file_comes_once(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for path in (root / "a" / "one", root / "two", elsewhere / "three"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("x")
    os.symlink(".", root / "0 itself")
    os.symlink("..", root / "a" / "up")
    os.symlink(root, root / "a" / "root")
    os.symlink(elsewhere, root / "linked")
    os.symlink(elsewhere, root / "linked again")
    os.symlink(root / "two", root / "a" / "two too")
    os.symlink(root, elsewhere / "back")
    os.symlink("nowhere", root / "broken")
    found_files = found(root)
    assert len(found_files) == 3
    assert {os.path.realpath(path) for path in found_files} == {
        str(root / "a" / "one"),
        str(root / "two"),
        str(elsewhere / "three"),
    }
    assert str(root / "a" / "one") in found_files  # the way without a link


def test_a_link_to_a_folder_is_walked_and_a_folder_can_be_left_out(tmp_path):
    (tmp_path / "root" / "in" / "deep").mkdir(parents=True)
    (tmp_path / "root" / "out").mkdir()
    for name in ("in/deep/a", "out/b"):
        (tmp_path / "root" / name).write_text("x")
    os.symlink("root", tmp_path / "link")
    names = []
    for _, folders, files in walk(tmp_path / "link"):
        folders[:] = [name for name in folders if name != "out"]
        names += files
    assert names == ["a"]


def test_names_that_are_not_text_are_found(tmp_path):
    folder = os.fsencode(tmp_path) + b"/caf\xe9"
    os.mkdir(folder)
    open(folder + b"/\xff.wav", "wb").close()
    assert [os.fsencode(path) for path in found(tmp_path)] == [folder + b"/\xff.wav"]


@pytest.mark.parametrize("name", ["x" * 240 + ".weights.h5", "x" * 251 + ".npz", "語" * 83 + ".wav", "a.b"])
def test_a_file_with_the_longest_name_is_written_atomically(name, tmp_path):
    with replacing(tmp_path / name) as partial:
        assert partial.name.endswith(name[name.index(".") :])
        partial.write_bytes(b"new")
    write_atomically(tmp_path / name, b"newer")
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_bytes() == b"newer"


def test_paths_that_a_user_typed_become_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    assert [expand(path) for path in ("", "~/x", "midi/", "../y", "/z")] == [
        *("", "/home/me/x", f"{tmp_path}/midi"),
        *(f"{tmp_path.parent}/y", "/z"),
    ]
