"""What an organization manages: of several who save at once over the same text, one does."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from bailee.accounts.directory import Directory, open_directory
from bailee.accounts.managed import Overtaken, read_managed, save_managed
from bailee.accounts.tables import Role
from bailee.policy.plans import Plan


def save_at_once(directories: list[Directory], *, over: str | None) -> list[int]:
    """Save another text from each, at once; return which were saved."""
    ada = directories[0].get("ada").id

    def save(number: int) -> bool:
        body = f'{{"cleanupPeriodDays": {number + 1}}}\n'
        try:
            save_managed(directories[number], "acme", body, account=ada, by="ada", over=over)
        except Overtaken:
            return False
        return True

    with ThreadPoolExecutor(len(directories)) as pool:
        return [number for number, saved in enumerate(pool.map(save, range(len(directories)))) if saved]


@pytest.mark.parametrize("begun", [False, True])
def test_one_of_several_saves_over_a_text(tmp_path: Path, database: str, begun: bool) -> None:
    """The others are told that it is another by now, the first text of all included; control: over whatever
    is there all of them save.
    """
    directories = [open_directory(tmp_path) for _ in range(4)]
    directories[0].add("ada", Plan.TEAM, organization="acme", role=Role.ADMIN)
    if begun:
        save_managed(directories[0], "acme", "{ }\n", account="x", by="ada")
    for _ in range(5):
        tag = read_managed(directories[0], "acme").tag
        (saved,) = save_at_once(directories, over=tag)
        assert read_managed(directories[0], "acme").body == f'{{"cleanupPeriodDays": {saved + 1}}}\n'
        save_managed(directories[0], "acme", "{ }\n", account="x", by="ada")
    assert save_at_once(directories, over=None) == [0, 1, 2, 3]
    for directory in directories:
        directory.close()
