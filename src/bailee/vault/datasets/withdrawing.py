"""Takes out of a dataset all that verification names, so that nothing is named any more."""

from pathlib import Path

from bailee.ledger.entries import CopyWithdrawn
from bailee.moments import tell_moment
from bailee.policy.problems import Problem
from bailee.vault.copies import registry
from bailee.vault.copies.cascade import change_index
from bailee.vault.copies.exports import digest
from bailee.vault.copies.folders import holding_copy, open_folder
from bailee.vault.custody import Custody
from bailee.vault.datasets.manifests import MANIFEST, Manifest, encode, read
from bailee.vault.datasets.verification import verify_dataset
from bailee.vault.datasets.withdrawal import read_manifest, take_out


def withdraw_dataset(custody: Custody, path: Path) -> dict[str, int]:
    """Take out of a dataset what may not be in it any more; return how many items went for which reason.

    Raises:
        Problem: it is not as it was built, or was not built here.
    """
    path = path.resolve()
    manifest = read(path / MANIFEST, Manifest)
    copy = registry.get(custody.vault, manifest.build) if manifest is not None else None
    if copy is not None and copy.folder == str(path):
        custody.follow_copies({copy.id})  # what was due anyway, and what was interrupted
    verdict = verify_dataset(custody, path)
    if verdict.faults:
        raise Problem(
            f"the dataset is not as it was built: {verdict.faults[0].path}: {verdict.faults[0].what}",
            where=str(path),
            fix="see: bailee dataset verify; build a new one",
        )
    if copy is None or copy.folder != str(path):
        there = f"say that it lies here: bailee copies locate {copy.id} {path}" if copy else "build a new one"
        raise Problem("no dataset is known to lie here", where=str(path), fix=there)
    reasons = {gone.item: gone.why.value for gone in verdict.gone}
    if not reasons:
        return {}
    only = {gone.file for gone in verdict.gone}
    now_ms = custody.now_ms()
    at = tell_moment(now_ms)
    with holding_copy(custody.home, copy.id), open_folder(path) as folder:
        before = read_manifest(folder.read(MANIFEST) or b"")
        after = take_out(folder, before, lambda item, segment: reasons.get(item), only=only, at=at)
        if after is before:
            return {}  # another has just done it
        taken = after.withdrawn[-1].taken
        data = encode(after)
        entry = CopyWithdrawn(
            id=custody.draw(),
            at_ms=now_ms,
            copy=copy.id,
            what=copy.kind,
            digest=digest(data),
            taken=sum(taken.values()),
        )
        change_index(custody.vault, copy, folder, data, before.files, after.files, entry)
    custody.settle()
    return taken
