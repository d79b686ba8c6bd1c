# SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
#
# make demo          the main job, checked at every step
# make test          all tests; those of chains in VMs with kernels 6.12 and 5.10
# make test-kernels  the tests of chains on all four kernels
# make kill          a process killed at every system call of every change, on 6.12 and 5.10; slow
# make bpf           builds the BPF objects again from their sources
# make bench         speed beside C libxdp in a VM, of looking at many namespaces, and of AF_XDP
# make fuzz          hostile input of every kind, five minutes each
# make capi          builds libxdp.so.1, the C library, into target/capi/lib
# make install       installs it with its headers; PREFIX, LIBDIR, INCLUDEDIR, MANDIR and DESTDIR say where
# make uninstall     removes what that has installed, with the same variables
# make deb           Debian packages of it, in target/capi/deb
#
# Each installs what it needs (Debian 12, as root).

# `su` without `-` leaves out the folders of depmod, modprobe and xdp-loader.
export PATH := $(PATH):/usr/local/sbin:/usr/sbin:/sbin

export PREFIX LIBDIR INCLUDEDIR MANDIR DESTDIR

.PHONY: demo test test-kernels kill bpf bench fuzz capi install uninstall deb

demo:
	@tests/setup build
	@echo "building the quickstart"
	@cargo build --quiet --example quickstart
	@cargo run --quiet --example quickstart

test:
	@tests/setup test
	@tests/suite native
	@tests/suite vm 6.12 5.10
	@echo "make test: ok (this kernel, 6.12, 5.10)"

test-kernels:
	@tests/setup test
	@tests/suite vm 5.10 6.1 6.12 newest
	@echo "make test-kernels: ok (5.10, 6.1, 6.12, newest)"

kill:
	@tests/setup test
	@tests/suite deaths 6.12 5.10
	@echo "make kill: ok (6.12, 5.10)"

bpf:
	@tests/setup test
	@OXDP_BLESS=1 cargo test --quiet --test bpf_objects

bench:
	@tests/setup bench
	@cargo bench --quiet --benches --no-run
	@benches/run
	@benches/run recovery
	@benches/run xsk
	@benches/run load

fuzz:
	@tests/setup test
	@fuzz/run all 300

capi:
	@src/capi/install build

install:
	@src/capi/install files

uninstall:
	@src/capi/install remove

deb:
	@src/capi/deb
