"""Files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import secrets
import time

DRAFT = ".draft"
_ABANDONED_S = 3600.0


def replace(path: str, content: bytes, mtime_ns: int | None = None) -> None:
    """Writes a file beside `path` and puts it in its place."""
    folder, name = os.path.split(path)
    # Not the process id: two containers may share the folder and count alike.
    draft = os.path.join(folder, f".{name}.{secrets.token_hex(8)}{DRAFT}")
    os.makedirs(folder, exist_ok=True)
    try:
        with open(draft, "wb") as file:
            file.write(content)
        if mtime_ns is not None:
            os.utime(draft, ns=(mtime_ns, mtime_ns))
        os.replace(draft, path)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(draft)
        raise


def remove_abandoned(folder: str) -> None:
    """Removes drafts of processes that were killed while they wrote."""
    with contextlib.suppress(OSError):
        for entry in os.scandir(folder):
            if entry.name.startswith(".") and entry.name.endswith(DRAFT):
                with contextlib.suppress(OSError):
                    if time.time() - entry.stat().st_mtime > _ABANDONED_S:
                        os.unlink(entry.path)
