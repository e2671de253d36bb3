"""Which packages a virtual machine's root is made of."""

from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from bailee.sandbox.packages import Package, choose_packages, copy_file, copy_tree, list_files

NAMES = st.sampled_from([f"p{number}" for number in range(12)])
PACKAGES = st.builds(
    Package,
    name=NAMES,
    needs=st.lists(st.lists(NAMES, min_size=1, max_size=3).map(tuple), max_size=4).map(tuple),
    provides=st.lists(NAMES, max_size=2).map(tuple),
)


@given(st.lists(PACKAGES, unique_by=lambda one: one.name), st.lists(NAMES, max_size=4))
def test_what_is_chosen_is_closed(installed: list[Package], wanted: list[str]) -> None:
    """All that is wanted and there, and for each need of it one that meets it, where one is there."""
    known = {one.name: one for one in installed}
    chosen = set(choose_packages(installed, wanted))
    assert chosen <= set(known)
    assert set(wanted) & set(known) <= chosen
    for name in chosen:
        for alternatives in known[name].needs:
            meets = {one.name for one in installed if {one.name, *one.provides} & set(alternatives)}
            assert not meets or meets & chosen


def test_files_of_packages_have_no_settings() -> None:
    """Programs, and nothing below /etc, where a host's own settings lie."""
    found = set(list_files(["bash", "coreutils", "dash"]))
    assert {"/usr/bin/bash", "/usr/bin/ls", "/usr/bin/sh"} <= found
    assert not [path for path in found if path.startswith("/etc/")]


def test_trees_are_copied_without_what_is_left_out(tmp_path: Path) -> None:
    """Links stay links, and names that are left out stay out."""
    source = tmp_path / "source"
    (source / "lib" / "test").mkdir(parents=True)
    (source / "lib" / "test" / "big").write_text("x")
    (source / "lib" / "module.py").write_text("y")
    (source / "link").symlink_to("lib")
    (source / ".git").mkdir()
    target = tmp_path / "target"
    copy_tree(source, target, {"*": frozenset({".git"}), str(source / "lib"): frozenset({"test"})})
    made = Path(f"{target}{source}")
    assert (made / "link").is_symlink()
    assert (made / "lib" / "module.py").read_text() == "y"
    assert sorted(one.name for one in made.rglob("*")) == ["lib", "link", "module.py"]


def test_a_file_that_is_there_stays(tmp_path: Path) -> None:
    """The first of two packages that bring a file has it."""
    for name in ("one", "two"):
        (tmp_path / name).write_text(name)
    copy_file(str(tmp_path / "one"), str(tmp_path / "there"))
    copy_file(str(tmp_path / "two"), str(tmp_path / "there"))
    assert (tmp_path / "there").read_text() == "one"
