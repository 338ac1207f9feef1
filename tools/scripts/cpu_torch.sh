#!/usr/bin/env bash
# Installs the pinned torch into the virtual environment for use WITHOUT a GPU.
# The default wheel links to 3 GB of CUDA libraries that a CPU run never calls, so
# the small run-time library is installed and the others get empty stand-ins.
# usage: tools/scripts/cpu_torch.sh [VENV]      (default: tools/.venv)
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
venv=${1:-$here/.venv}
[ -x "$venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$venv"
pip="$venv/bin/python -m pip"
$pip install -q -r "$here/requirements.txt"
$pip install -q --no-deps torch==2.11.0 nvidia-cuda-runtime==13.0.96 nvidia-cuda-cupti==13.0.85
lib=$("$venv/bin/python" -c 'import importlib.util as u, pathlib; print(pathlib.Path(u.find_spec("torch").origin).parent / "lib")')
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
for so in "$lib"/libtorch*.so "$lib"/libc10_cuda.so; do nm -D --undefined-only "$so"; done |
  sed -nE 's/^ +U ((nvshmem|cublas|cudnn|nccl|pnccl|cusparse|cufft|curand|cusolver|cuFile|nvrtc|cu[A-Z])[A-Za-z0-9_]*)(@+(.*))?$/\1 \4/p' |
  sort -u >"$tmp/symbols"
awk '!seen[$1]++ { print "void " $1 "(void) {}" }' "$tmp/symbols" >"$tmp/none.c"
# The loader checks symbol versions, so the stand-ins declare them.
awk 'NF > 1 { names[$2] = names[$2] " " $1 ";" } END { for (v in names) print v " { global:" names[v] " };" }' \
  "$tmp/symbols" >"$tmp/none.map"
for name in libcublas.so.13 libcublasLt.so.13 libcuda.so.1 libcudnn.so.9 libcufft.so.12 libcufile.so.0 \
    libcurand.so.10 libcusolver.so.12 libcusparse.so.12 libcusparseLt.so.0 libnccl.so.2 libnvrtc.so.13 \
    libnvshmem_host.so.3; do
  rm -f "$lib/$name"
  "${CC:-cc}" -shared -w "$tmp/none.c" -Wl,-soname,"$name" -Wl,--version-script="$tmp/none.map" -o "$lib/$name"
done
"$venv/bin/python" -c 'import torch; assert not torch.cuda.is_available(); print("torch", torch.__version__, (torch.ones(2, 2) @ torch.ones(2, 2)).sum().item())'
