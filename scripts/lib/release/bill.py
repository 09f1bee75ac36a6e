"""Prints the bill of materials (CycloneDX 1.5) of both programs for a target: what `cargo metadata` says is built into them."""

import json
import os
import subprocess
import sys
import time
import uuid

PROGRAMS = ("nemo-slurm", "nemo-harness")
SCHEMA = "http://cyclonedx.org/schema/bom-1.5.schema.json"


def cargo(target):
    command = ["cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)


def checksums():
    """From Cargo.lock: (name, version) to the SHA-256 of the crate that was downloaded."""
    found, name, version = {}, None, None
    with open("Cargo.lock") as lock:
        for line in lock:
            key, _, value = line.strip().partition(" = ")
            value = value.strip('"')
            if key == "name":
                name = value
            elif key == "version":
                version = value
            elif key == "checksum":
                found[name, version] = value
    return found


def is_built_in(dependency):
    """Whether it is part of the program or of its build; tests have more."""
    return any(kind["kind"] in (None, "build") for kind in dependency["dep_kinds"])


def graph(metadata):
    """Each package that the programs are built from, with those that it needs itself."""
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    packages = {package["id"]: package for package in metadata["packages"]}
    left = [key for key in metadata["workspace_members"] if packages[key]["name"] in PROGRAMS]
    needs = {}
    while left:
        key = left.pop()
        if key not in needs:
            needs[key] = sorted(dependency["pkg"] for dependency in nodes[key]["deps"] if is_built_in(dependency))
            left += needs[key]
    return packages, needs


def component(package, sums):
    name, version = package["name"], package["version"]
    own = {"type": "application" if name in PROGRAMS else "library", "bom-ref": f"{name}@{version}", "name": name, "version": version}
    if package["license"]:
        own["licenses"] = [{"expression": package["license"].replace("/", " OR ")}]
    if package["source"]:
        own["purl"] = f"pkg:cargo/{name}@{version}"
    if (name, version) in sums:
        own["hashes"] = [{"alg": "SHA-256", "content": sums[name, version]}]
    return own


def main():
    (target,) = sys.argv[1:]
    sums, (packages, needs) = checksums(), graph(cargo(target))
    refs = {key: f"{packages[key]['name']}@{packages[key]['version']}" for key in needs}
    keys = sorted(needs, key=refs.get)
    version = next(package["version"] for package in packages.values() if package["name"] == "nemo-slurm")
    rust = subprocess.run(["rustc", "--version"], check=True, stdout=subprocess.PIPE, text=True).stdout.split()[1]
    library = {"type": "library", "bom-ref": f"rust-std@{rust}", "name": "rust-std", "version": rust, "licenses": [{"expression": "MIT OR Apache-2.0"}]}
    parts = [component(packages[key], sums) for key in keys] + [library]
    moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(int(os.environ["SOURCE_DATE_EPOCH"])))
    bill = {
        "$schema": SCHEMA,
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_URL, json.dumps([target, moment, parts]))}",
        "version": 1,
        "metadata": {
            "timestamp": moment,
            "component": {"type": "application", "bom-ref": "nemo-slurm", "name": "nemo-slurm", "version": version},
            "properties": [{"name": "target", "value": target}],
        },
        "components": parts,
        "dependencies": [{"ref": refs[key], "dependsOn": [refs[need] for need in needs[key]]} for key in keys],
    }
    json.dump(bill, sys.stdout, indent=1)
    print()


if __name__ == "__main__":
    main()
