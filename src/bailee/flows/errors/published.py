"""What stands in published code: the modules that are installed here, and the identifiers in each.

An identifier has room for a token or a name, so that its form alone proves nothing. One that stands in a
published module says nothing but that.
"""

import importlib.util
import re
from functools import lru_cache
from pathlib import Path

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)
# What Python calls code that has no name of its own, and what stands in the way to a name.
_UNNAMED = frozenset({"module", "lambda", "listcomp", "setcomp", "dictcomp", "genexpr", "locals"})
_MODULES_IN_MEMORY = 200


def is_published(module: str, name: str) -> bool:
    """Tell whether a module is installed here and every part of a name stands in its source."""
    known = read_identifiers(module)
    parts = _IDENTIFIER.findall(name)
    return known is not None and bool(parts) and all(part in known or part in _UNNAMED for part in parts)


@lru_cache(maxsize=_MODULES_IN_MEMORY)
def read_identifiers(module: str) -> frozenset[str] | None:
    """Return the identifiers in a module's source; None where no source of it is installed here."""
    path = _find(module)
    try:
        source = path.read_text(encoding="utf-8") if path else None
    except (OSError, UnicodeDecodeError):
        return None
    return None if source is None else frozenset(_IDENTIFIER.findall(source))


def _find(module: str) -> Path | None:
    """Return where a module's source lies; nothing is imported for it."""
    top, *rest = module.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest and not spec.submodule_search_locations:
        # Modules that are built into Python's program tell their file otherwise.
        origin = getattr(spec.loader_state, "filename", None) or spec.origin
        return Path(origin) if origin and origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        place = Path(folder).joinpath(*rest)
        for path in (place / "__init__.py", place.with_suffix(".py") if rest else place / "__init__.py"):
            if path.is_file():
                return path
    return None
