#!/bin/busybox sh
# The first program of a virtual machine: modules, the root out of its two read-only parts and memory for what is
# written, the network; then guest.py. Run once for an image; sessions begin from what it has made.
b=/bin/busybox
for folder in /proc /sys /dev /system /tools /over /root; do $b mkdir -p $folder; done
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
while read -r module; do $b insmod "/modules/$module"; done < /modules/order
$b mount -t erofs -o ro /dev/vda /system
$b mount -t erofs -o ro /dev/vdb /tools
$b mount -t tmpfs -o size=50% over /over
$b mkdir /over/upper /over/work
$b mount -t overlay -o lowerdir=/tools:/system,upperdir=/over/upper,workdir=/over/work overlay /root
$b mkdir -p /root/proc /root/sys /root/dev /root/tmp /root/run /root/var/tmp /root/session /root/root
$b chmod 1777 /root/tmp /root/var/tmp
$b hostname session
$b ifconfig lo 127.0.0.1 up
$b ifconfig eth0 10.0.2.15 netmask 255.255.255.0 up
$b route add default gw 10.0.2.2
echo 1 > /proc/sys/kernel/kptr_restrict
for folder in dev proc sys; do $b mount --move /$folder /root/$folder; done
$b mkdir -p /root/dev/pts /root/dev/shm
$b mount -t devpts devpts /root/dev/pts
$b mount -t tmpfs shm /root/dev/shm
for name in fd:fd stdin:fd/0 stdout:fd/1 stderr:fd/2; do $b ln -s "/proc/self/${name#*:}" "/root/dev/${name%%:*}"; done
read -r python < /guest/python
$b cp /guest/guest.py /root/guest.py
exec $b switch_root /root "$python" -I -S /guest.py port
