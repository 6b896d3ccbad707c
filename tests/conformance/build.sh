#!/usr/bin/env bash
# Builds protobuf's conformance test runner from Debian's source package, and the descriptors of its test messages.
#
#     tests/conformance/build.sh DIR
#
# Afterwards DIR holds `runner` and `messages.binpb`. Needs root or passwordless sudo for the packages; the last line
# says what was built.
set -euo pipefail

out=$(mkdir -p "${1:?a directory to build in}" && cd "$1" && pwd)
if [[ -x $out/runner && -s $out/messages.binpb ]]; then
  echo "$out/runner is already there"
  exit 0
fi
sudo=$([[ $(id -u) == 0 ]] || echo sudo)

# The sources of the same release and mirror as the binaries.
if ! apt-cache showsrc protobuf >/dev/null 2>&1; then
  for list in /etc/apt/sources.list.d/*.sources; do
    [[ -e $list ]] && sed 's/^Types: deb$/Types: deb-src/' "$list" | $sudo tee "${list%.sources}-src.sources" >/dev/null
  done
fi
$sudo apt-get -qq update
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
  dpkg-dev g++ libprotobuf-dev libprotoc-dev libjsoncpp-dev protobuf-compiler >/dev/null

cd "$out"
apt-get -qq source protobuf >/dev/null 2>&1
source=$(echo protobuf-*/)

# The suite includes jsoncpp's header by the place at which upstream vendors it.
mkdir -p include/third_party/jsoncpp gen
echo '#include <json/json.h>' >include/third_party/jsoncpp/json.h

protos=(conformance/conformance.proto
  src/google/protobuf/test_messages_proto2.proto src/google/protobuf/test_messages_proto3.proto)
generated=()
for proto in "${protos[@]}"; do
  root=$source/${proto%%/*}
  protoc -I "$root" -I "$source/src" --cpp_out=gen "$source/$proto"
  generated+=("gen/${proto#*/}")
done
protoc -I "$source/conformance" -I "$source/src" --include_imports --descriptor_set_out=messages.binpb \
  "${protos[@]/#/$source/}"

g++ -O1 -w -std=c++17 -I gen -I include -I "$source/conformance" -I "$source/src" -I /usr/include/jsoncpp \
  "$source"/conformance/{conformance_test,conformance_test_main,conformance_test_runner}.cc \
  "$source"/conformance/{binary_json,text_format}_conformance_suite.cc \
  "${generated[@]/%.proto/.pb.cc}" \
  -o runner -lprotoc -lprotobuf -ljsoncpp -lpthread
echo "$out/runner is built"
