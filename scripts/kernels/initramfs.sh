#!/bin/busybox sh
# shellcheck shell=dash
# /init of the initramfs of scripts/kernels.sh: mounts the images of the distribution and of the run,
# with a file system in memory above them, and starts guest.sh there.
/bin/busybox --install -s /bin
export PATH=/bin
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </modules/order
mkdir -p /distribution /run /memory /new
mount -t tmpfs -o size=75% memory /memory
mkdir /memory/upper /memory/work
mount -t ext4 -o ro /dev/vda /distribution
mount -t ext4 -o ro /dev/vdb /run
mount -t overlay -o lowerdir=/run:/distribution,upperdir=/memory/upper,workdir=/memory/work overlay /new
mount --move /dev /new/dev
exec switch_root /new /usr/local/lib/kernels/guest.sh
