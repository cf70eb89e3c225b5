#!/bin/sh
# What the C++ example needs of Debian or Ubuntu, installed as root: a compiler, OpenCV's four modules, readers of JSON
# and zip, and ONNX Runtime's headers, of which Debian has a package from trixie on. The libraries of OpenVINO and ONNX
# Runtime come from their pip wheels.
set -eu
export DEBIAN_FRONTEND=noninteractive
apt-get update -qq
apt-get install -y -qq --no-install-recommends g++ cmake make libopencv-videoio-dev nlohmann-json3-dev libzip-dev >/dev/null
if apt-get install -y -qq --no-install-recommends libonnxruntime-dev >/dev/null 2>&1; then exit 0; fi
# Debian's next release has them, 85 kB: apt checks its signature, and no package of it is installed.
headers=/usr/local/include/onnxruntime
[ ! -e "$headers/onnxruntime_cxx_api.h" ] || exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work/lists/partial" "$headers"
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://deb.debian.org/debian trixie main" >"$work/trixie.list"
next() {
  apt-get -qq -o Dir::Etc::sourcelist="$work/trixie.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::State::lists="$work/lists" -o Dir::Cache="$work" -o APT::Sandbox::User=root "$@"
}
next update
cd "$work"
next download libonnxruntime-dev
dpkg-deb --fsys-tarfile libonnxruntime-dev_*.deb | tar -x -C "$headers" --strip-components=4 ./usr/include/onnxruntime
