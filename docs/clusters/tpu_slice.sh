#!/bin/bash
# A phase diagram on a slice of Cloud TPUs, one process on each of its hosts. All hosts write into one
# data set, so they need a shared folder, here an NFS share (Filestore, for example).
#     docs/clusters/tpu_slice.sh NAME ZONE NFS REPOSITORY --flagfile=experiments/flagfiles/phase.flags
# NAME and ZONE are those of the slice, NFS is HOST:/SHARE, REPOSITORY an address that git can clone.
# A second call with the same flags resumes an interrupted run.
set -euo pipefail
name=${1:?the name of the slice} zone=${2:?its zone} nfs=${3:?HOST:/SHARE} repository=${4:?to clone}
shift 4

gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all --command="
  set -eu
  sudo apt-get install --quiet --yes nfs-common
  sudo mkdir -p /mnt/results
  mountpoint --quiet /mnt/results || sudo mount -t nfs $nfs /mnt/results
  test -d adam_transition || git clone --quiet $repository adam_transition
  cd adam_transition
  test -d .venv || python3 -m venv .venv
  .venv/bin/pip install --quiet --requirement requirements.lock
  .venv/bin/pip install --quiet --editable '.[tpu]'
  sudo chown \$(id -u) /mnt/results
  .venv/bin/python -m experiments.phase --out=/mnt/results/phase $(printf '%q ' "$@")
"
