"""What a report of a fault needs, in one archive: configs, versions, the ends of logs. No data, weights or samples."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

from ajest.errors import check
from ajest.runtime.environment import facts
from ajest.storage.checkpoint import write_atomic

#: Files that are taken whole, and logs of which the last lines are, by name. Everything else stays behind.
WHOLE = ("study.json", "bench.json", "config.json", "reference.json", "status.json", "calibration.json", "threads.json")
LOGS = ("ledger.jsonl", "failures.jsonl")
#: Lines of each log.
TAIL = 20


def write_bundle(folder: Path, out: Path) -> list[str]:
    """Write the archive.

    Args:
        folder: of a bench, a study or a run; it may be half-finished or damaged.
        out: the archive, a .zip.

    Returns:
        The names of the files in it.

    Raises:
        UserError: the folder holds nothing of the kind, or the archive cannot be written.
    """
    check(out.suffix == ".zip", f"--bundle {out}: the archive is a .zip")
    found = [path for path in sorted(folder.rglob("*.json*")) if path.name in (*WHOLE, *LOGS) and path.is_file()]
    check(bool(found), f"{folder} holds no bench, study or run: name the folder that --out named, or one in runs/")
    content = {str(path.relative_to(folder)): _anonymous(_text(path)) for path in found}
    content["environment.json"] = json.dumps(facts(), indent=2) + "\n"
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        for name, text in content.items():
            file.writestr(name, text)
    write_atomic(out, archive.getvalue())
    return sorted(content)


def _text(path: Path) -> str:
    """As it stands, whether whole or damaged: what is wrong with it may be what is looked for."""
    text = path.read_text(errors="replace")
    return "".join(text.splitlines(keepends=True)[-TAIL:]) if path.name in LOGS else text


def _anonymous(text: str) -> str:
    """Without the name of the user's folder."""
    home = Path.home()
    return text.replace(str(home), "~") if len(home.parts) > 2 else text
