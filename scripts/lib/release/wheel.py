"""Packs both programs and the Python module into one wheel: wheel.py VERSION MACHINE TREE FOLDER.

A wheel is a zip file with four more files (PEP 427). maturin builds the programs of one Cargo package by itself; these are
two packages, and the wheel has the very programs of the other archives.
"""

import base64
import hashlib
import os
import sys
import time
import zipfile
from pathlib import Path

# The programs are static: they run with any C library, and with none. The oldest name is for an old pip.
TAGS = ("manylinux1", "manylinux2014", "manylinux_2_17", "musllinux_1_1")
ARM_TAGS = ("manylinux2014", "manylinux_2_17", "musllinux_1_1")

METADATA = """\
Metadata-Version: 2.1
Name: nemo-slurm
Version: {version}
Summary: Experiments on Slurm, from a TOML file to a table of results
License: Apache-2.0
Requires-Python: >=3.8
Classifier: Environment :: Console
Classifier: Operating System :: POSIX :: Linux
Description-Content-Type: text/markdown

"""


def entry(name, mode):
    """What the zip file says of one of its files."""
    moment = time.gmtime(max(int(os.environ["SOURCE_DATE_EPOCH"]), 315532800))[:6]  # zip knows no time before 1980
    info = zipfile.ZipInfo(name, moment)
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = (0o100000 | mode) << 16
    info.create_system = 3  # Unix
    return info


def contents(version, tags, tree):
    """Every file but the list of them: name, mode, bytes."""
    own, data = f"nemo_slurm-{version}.dist-info", f"nemo_slurm-{version}.data"
    yield "nemo_harness.py", 0o644, (tree / "share/nemo-slurm/nemo_harness.py").read_bytes()
    for path in sorted((tree / "bin").iterdir()):
        yield f"{data}/scripts/{path.name}", 0o755, path.read_bytes()
    for path in sorted(tree.rglob("share/*/**/*")):
        if path.is_file() and path.name != "nemo_harness.py":
            yield f"{data}/data/{path.relative_to(tree)}", 0o644, path.read_bytes()
    readme = (tree / "share/doc/nemo-slurm/README.md").read_text()
    yield f"{own}/METADATA", 0o644, (METADATA.format(version=version) + readme).encode()
    lines = ["Wheel-Version: 1.0", "Generator: nemo-slurm", "Root-Is-Purelib: false", *(f"Tag: py3-none-{tag}" for tag in tags)]
    yield f"{own}/WHEEL", 0o644, ("\n".join(lines) + "\n").encode()
    yield f"{own}/LICENSE", 0o644, (tree / "share/doc/nemo-slurm/LICENSE").read_bytes()


def main():
    version, machine, tree, folder = sys.argv[1:]
    tags = [f"{tag}_{machine}" for tag in (TAGS if machine == "x86_64" else ARM_TAGS)]
    record, listed = f"nemo_slurm-{version}.dist-info/RECORD", ""
    with zipfile.ZipFile(Path(folder) / f"nemo_slurm-{version}-py3-none-{'.'.join(tags)}.whl", "w") as wheel:
        for name, mode, data in contents(version, tags, Path(tree)):
            wheel.writestr(entry(name, mode), data)
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            listed += f"{name},sha256={digest},{len(data)}\n"
        wheel.writestr(entry(record, 0o644), f"{listed}{record},,\n")


if __name__ == "__main__":
    main()
