# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
#
# Where what the tests of the installed C library need is: at one path here and in VMs. To be sourced from the checkout.

capi=$(realpath -m "${CARGO_TARGET_DIR:-target}")/capi
# `make install`, with DESTDIR.
root=$capi/root
# The examples in C, with AddressSanitizer, which also finds what is not freed.
programs=$capi/examples
# The Debian packages.
packages=$capi/deb
multiarch=/usr/lib/$(gcc -print-multiarch)
# A program that was built with C libxdp, and knows nothing of us.
unchanged=$capi/unchanged

die() {
	echo "${0##*/}: $*" >&2
	exit 1
}

# The command fails, and says $1.
refused() {
	local words=$1 said
	shift
	! said=$("$@" 2>&1) || die "did not fail: $*"
	[[ $said == *"$words"* ]] || die "$*: does not say \"$words\": $said"
}

# The command succeeds, and says $1.
says() {
	local words=$1 said
	shift
	said=$("$@" 2>&1) || die "failed: $*: $said"
	[[ $said == *"$words"* ]] || die "$*: does not say \"$words\": $said"
}

# Before a command: has it run with the library that was installed.
with_ours=(env "LD_LIBRARY_PATH=$root/usr/local/lib")
