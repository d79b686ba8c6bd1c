# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
#
# What the scripts of this folder share: where things are, which kernels there are, how to complain.
# To be sourced.

# `su` without `-` leaves out the folders of depmod and its like.
export PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin

vm_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
checkout=$(cd "$vm_dir/../.." && pwd -P)
cache=${OXDP_VM_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/oxdp-vm}
[[ $cache == /* ]] || cache=$PWD/$cache

# The kernels of the lab, oldest first.
readonly kernels=(5.10 6.1 6.12 newest)

# Packages of these names are what Debian's linux-image-amd64 leads to in the suite of each kernel.
suite_of() {
	case $1 in
	5.10) echo bullseye ;;
	6.1) echo bookworm ;;
	6.12) echo trixie ;;
	newest) echo sid ;;
	*) return 1 ;;
	esac
}

# Where everything of one kernel is kept.
kernel_dir() {
	echo "$cache/kernels/$1"
}

# The first file system of kernel $1, named after what is in it: two checkouts may share the cache.
initramfs_file() {
	echo "$(kernel_dir "$1")/initramfs-$(cksum <"$vm_dir/init" | tr ' ' -)"
}

# The file that says which accelerator kernel $1 is run with on this machine, since its last boot.
accelerator_file() {
	echo "$(kernel_dir "$1")/accelerator-$(</proc/sys/kernel/random/boot_id)"
}

say() {
	echo "oxdp-vm: $*" >&2
}

# Everything that is the lab's own fault ends with 125, so that it is not taken for a failed test.
die() {
	say "$*"
	exit 125
}

# Runs a command with its output kept back; shows that output only if the command failed.
quietly() {
	local log status=0
	log=$(mktemp)
	"$@" >"$log" 2>&1 </dev/null || status=$?
	((status == 0)) || cat "$log" >&2
	rm -f "$log"
	return "$status"
}

# For what goes over the network: three tries, with a pause between them.
with_retries() {
	local try
	for try in 1 2 3; do
		if quietly "$@"; then return 0; fi
		((try == 3)) || { say "that failed, trying again"; sleep $((try * 5)); }
	done
	return 1
}
