"""Verifies a dataset: that it is what was built, and that all of it may still be in it.

The ledger tells of the manifest, the manifest of the files, and each item of its segment. So nothing but the
home's vault and ledger is needed, and of what is erased the ledger alone.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import msgspec

from bailee.ledger.checkpoints import Checkpoint, open_checkpoint
from bailee.ledger.entries import CopyWithdrawn, DatasetBuilt, KeysDestroyed, decode_entry
from bailee.ledger.merkle import is_consistent
from bailee.ledger.notes import NoteRefused
from bailee.policy.problems import Problem
from bailee.vault.custody import Custody
from bailee.vault.datasets.items import Origin, digest_file, read_origins
from bailee.vault.datasets.manifests import BUILDING, MANIFEST, Manifest, read
from bailee.vault.datasets.selection import Judged, Why, judge_segments


class Gone(msgspec.Struct, frozen=True):
    """An item that may not be in a dataset any more."""

    item: str
    why: Why
    file: str


class Fault(msgspec.Struct, frozen=True):
    """Something that is not as it was built."""

    what: str
    path: str


class Verdict(msgspec.Struct):
    """What verifying a dataset found.

    Attributes:
        items: how many the manifest tells of.
        gone: what has to be removed.
        faults: what is not as it was built.
    """

    items: int = 0
    gone: list[Gone] = []
    faults: list[Fault] = []

    @property
    def is_in_order(self) -> bool:
        """Return whether nothing is wrong and nothing has to go."""
        return not self.gone and not self.faults


def verify_dataset(custody: Custody, folder: Path) -> Verdict:
    """Verify a dataset.

    Raises:
        Problem: there is no dataset in the folder, or the build of one is not finished.
    """
    verdict = Verdict()
    manifest = _read_manifest(folder, verdict)
    if manifest is None:
        return verdict
    verdict.items = manifest.counts.items
    custody.settle()
    start = _check_checkpoint(custody, manifest, verdict)
    digest = hashlib.sha256((folder / MANIFEST).read_bytes()).hexdigest()
    destroyed, is_told = _read_ledger(custody, start, digest)
    if not is_told:
        verdict.faults.append(Fault("the ledger tells of no dataset with this manifest", MANIFEST))
    sound = _check_files(folder, manifest, verdict)
    verdict.gone = find_gone(custody, sound, destroyed)
    return verdict


def find_gone(
    custody: Custody, files: Sequence[Path], destroyed: Mapping[bytes, Why] | None = None
) -> list[Gone]:
    """Return the items of files that may not be in a dataset now.

    Memory holds the names of all their segments, 32 bytes each.

    Args:
        destroyed: of segments the vault may not hold any more, what the ledger says became of them.
    """
    wanted = {origin.segment for origin in read_origins(files)}
    judged = judge_segments(custody, wanted)
    gone = []
    for file in files:
        for origin in read_origins([file]):
            why = _judge_item(origin, judged, destroyed or {})
            if why is not None:
                gone.append(Gone(origin.item, why, file.name))
    return gone


def _judge_item(origin: Origin, judged: Mapping[bytes, Judged], destroyed: Mapping[bytes, Why]) -> Why | None:
    if origin.segment in destroyed:
        return destroyed[origin.segment]
    found = judged.get(origin.segment)
    if found is None:
        return Why.UNKNOWN
    if found.why is None and origin.started_ms < found.since_ms:
        return Why.BEFORE_CONSENT
    return found.why


def _read_manifest(folder: Path, verdict: Verdict) -> Manifest | None:
    try:
        manifest = read(folder / MANIFEST, Manifest)
    except Problem as problem:
        verdict.faults.append(Fault(problem.what, MANIFEST))
        return None
    if manifest is not None:
        return manifest
    if (folder / BUILDING).exists():
        raise Problem(
            "this dataset is not finished",
            where=str(folder),
            fix="build on: bailee dataset build with the same --out and --reason",
        )
    raise Problem("there is no dataset here", where=str(folder), fix="name the folder that it was built in")


def _check_checkpoint(custody: Custody, manifest: Manifest, verdict: Verdict) -> int:
    """Check that the ledger of now begins with that of the build; return how many entries it had then."""
    try:
        then = open_checkpoint(manifest.checkpoint.encode(), custody.log.verifier)
    except NoteRefused as refused:
        verdict.faults.append(Fault(f"its checkpoint is not this ledger's: {refused}", MANIFEST))
        return 0
    now = custody.log.checkpoint()
    if not _extends(custody, then, now):
        what = f"the ledger of {now.size} entries does not begin with the {then.size} it had at the build"
        verdict.faults.append(Fault(what, "ledger"))
        return 0
    return then.size


def _extends(custody: Custody, then: Checkpoint, now: Checkpoint) -> bool:
    if then.size > now.size:
        return False
    proof = custody.log.prove_consistency(then.size, now.size)
    return is_consistent(then.size, now.size, then.root, now.root, proof)


def _read_ledger(custody: Custody, start: int, digest: str) -> tuple[dict[bytes, Why], bool]:
    """Return what was destroyed since, and whether a dataset with this manifest was built since."""
    destroyed: dict[bytes, Why] = {}
    is_told = False
    for entry in _decode(custody.log.read(start)):
        if isinstance(entry, DatasetBuilt | CopyWithdrawn):
            is_told = is_told or entry.digest == digest
        elif isinstance(entry, KeysDestroyed):
            why = Why.EXPIRED if entry.why == "expired" else Why.ERASED
            destroyed.update({bytes.fromhex(segment): why for segment in entry.segments})
    return destroyed, is_told


def _decode(entries: Iterator[bytes]) -> Iterator[object]:
    for data in entries:
        try:
            yield decode_entry(data)
        except msgspec.MsgspecError:
            continue  # of a newer Bailee


def _check_files(folder: Path, manifest: Manifest, verdict: Verdict) -> list[Path]:
    """Compare the files with the manifest, and return those that are as they were built."""
    sound = []
    listed = {file.name for file in manifest.files}
    for file in manifest.files:
        path = folder / Path(file.name).name
        if not path.is_file():
            verdict.faults.append(Fault("this file is missing", file.name))
        elif digest_file(path) != file.sha256:
            verdict.faults.append(Fault("this file is not as it was built", file.name))
        else:
            sound.append(path)
    for path in sorted(folder.iterdir()):
        if path.name not in listed and path.name != MANIFEST:
            verdict.faults.append(Fault("this file is no part of the dataset", path.name))
    return sound
