#!/bin/sh
# The init of kuasar-boot.initrd: loads the drivers that kuasar.img needs, mounts it as a kernel with
# built-in drivers would, and starts its init.

fail() {
  echo "kuasar-boot: $*" >&2
  exit 1  # the kernel panics and reports it on the console
}

mount -t devtmpfs dev /dev
mount -t proc proc /proc

read -r words </proc/cmdline
root= type=ext4 options=ro
for word in $words; do
  case $word in
    root=*) root=${word#root=} ;;
    rootfstype=*) type=${word#rootfstype=} ;;
    rootflags=*) options=$options,${word#rootflags=} ;;
    rw) options=rw${options#ro} ;;
  esac
done
[ -n "$root" ] || fail "no root= on the kernel's command line"

while read -r module; do
  insmod "$module" || echo "kuasar-boot: $module was not loaded" >&2
done </root.list

# The kernel probes persistent memory in the background.
tries=0
until [ -b "$root" ]; do
  tries=$((tries + 1))
  [ "$tries" -lt 300 ] || fail "there is no $root"
  usleep 100000
done

mount -t "$type" -o "$options" "$root" /sysroot || fail "$root cannot be mounted"
umount /proc
mount -o move /dev /sysroot/dev
exec switch_root /sysroot /sbin/init
