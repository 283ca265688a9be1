#!/usr/bin/env bash
# Runs the tests of NUMA placement on an emulated machine of two nodes: numa_vm.sh KERNEL TESTS, where TESTS is the test
# program. Needs qemu-system-x86_64, busybox and cpio. A node has a CPU and half a gigabyte of memory.
set -euo pipefail
kernel=$1
program=$2

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/root/{bin,proc,sys,dev,tmp}
cp "$(command -v busybox)" "$work/root/bin/busybox"
# The program with its libraries and its loader, each at its own path.
{ echo "$program"; ldd "$program" | grep -oE '/[^ ]+'; } | while read -r file; do
    install -D "$(realpath "$file")" "$work/root$file"
done
cat >"$work/root/init" <<INIT
#!/bin/busybox sh
/bin/busybox mount -t proc none /proc
/bin/busybox mount -t sysfs none /sys
echo "nodes: \$(/bin/busybox cat /sys/devices/system/node/has_memory)"
$program --no-colors '-tc=*numa*,*KV heads*'
echo "exit status: \$?"
/bin/busybox poweroff -f
INIT
chmod +x "$work/root/init"
(cd "$work/root" && find . | cpio --quiet -o -H newc) >"$work/initramfs"

timeout 300 qemu-system-x86_64 -accel tcg -cpu max -nodefaults -display none -serial stdio -no-reboot -smp 2 -m 1G \
    -object memory-backend-ram,id=memory0,size=512M -numa node,nodeid=0,cpus=0,memdev=memory0 \
    -object memory-backend-ram,id=memory1,size=512M -numa node,nodeid=1,cpus=1,memdev=memory1 \
    -kernel "$kernel" -initrd "$work/initramfs" -append 'console=ttyS0 quiet panic=-1' </dev/null | tee "$work/log"
grep -q 'nodes: 0-1' "$work/log"
grep -q 'exit status: 0' "$work/log"
grep -qE 'test cases: +[1-9]' "$work/log"
! grep -qE 'skipped: (this|node)' "$work/log"
