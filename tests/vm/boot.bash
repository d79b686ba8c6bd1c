# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
#
# Boots a VM for one command and follows it to its end. To be sourced after lib.bash.

# What of the caller's environment the command sees.
readonly passed_on='^(PATH|HOME|USER|LANG|LC_ALL|TERM|CARGO_HOME|CARGO_TARGET_DIR|RUSTUP_HOME|RUSTUP_TOOLCHAIN|RUST_BACKTRACE|RUST_LOG|(OXDP|LIBXDP|NEXTEST)_.*)$'

# A comma ends a value in qemu's options, unless doubled.
comma() {
	echo "${1//,/,,}"
}

# Writes what the guest has to know into the job's folder $1: kernel $2, target folder $3, command $4….
write_job() {
	local job=$1 kernel=$2 target=$3 dir=$PWD name
	shift 3
	[[ $dir == "$checkout" || $dir == "$checkout"/* ]] || dir=$checkout
	printf '%s=%q\n' CHECKOUT "$checkout" TARGET "$target" KERNEL_DIR "$(kernel_dir "$kernel")" \
		HOME "$HOME" WORKING_DIR "$dir" >"$job/config"
	printf '%s\0' "$@" >"$job/command"
	for name in $(compgen -e); do
		[[ ! $name =~ $passed_on ]] || printf 'export %s=%q\n' "$name" "${!name}"
	done >"$job/environment"
	: >"$job/stdout"
	: >"$job/stderr"
}

# Replaces this shell by qemu: job's folder $1, kernel $2, target folder $3, accelerator $4.
exec_qemu() {
	local job=$1 kernel=$2 target=$3 accel=$4 dir
	local -a machine
	dir=$(kernel_dir "$kernel")
	# Whatever kills the guest ends the VM; and nothing that only costs time (init_on_alloc: 9p's buffers).
	local cmdline='console=ttyS0 quiet loglevel=5 panic=-1 oops=panic audit=0 apparmor=0 nowatchdog'
	cmdline+=' cryptomgr.notests mitigations=off init_on_alloc=0'
	if [[ $accel == kvm ]]; then
		machine=(-accel kvm -cpu host)
	else
		# A single thread for all processors: before 8.1, qemu with more of them may run what a guest had
		# in place of code it has just patched, and kernels patch theirs all the time. The clock is the
		# host's and thus sound, which older kernels do not believe. Five-level page tables cost time. And before
		# 8.0, cmpxchg16b, with which kernels take memory, leaves wrong flags to an interrupt that comes just then.
		machine=(-accel "tcg,thread=single" -cpu "max,la57=off,cx16=off")
		cmdline+=' tsc=reliable'
	fi
	# Two network cards on one wire, for tests of devices that outlive their namespace, which what the kernel makes up itself
	# does not, and of zero-copy. Without the ROM to boot from them, which is in another package. iommu_platform: the kernel
	# maps what they read and write as for other devices, without which their driver knows no zero-copy.
	local name
	local -a cards=()
	for name in near far; do
		cards+=(-netdev "hubport,id=$name,hubid=0")
		cards+=(-device "virtio-net-pci,netdev=$name,romfile=,disable-legacy=on,iommu_platform=on")
	done
	# pdeathsig: whatever ends this script, no VM outlives it.
	exec setpriv --pdeathsig KILL qemu-system-x86_64 \
		-nodefaults -no-user-config -no-reboot -display none -machine pc \
		"${machine[@]}" -smp "${OXDP_VM_CPUS:-2}" -m "${OXDP_VM_MEMORY:-2G}" \
		-kernel "$dir/vmlinuz" -initrd "$(initramfs_file "$kernel")" -append "$cmdline" \
		-chardev "file,id=console,path=$(comma "$job/console")" -serial chardev:console \
		"${cards[@]}" \
		-virtfs "local,path=/,mount_tag=root,security_model=none,multidevs=remap,readonly=on" \
		-virtfs "local,path=$(comma "$job"),mount_tag=job,security_model=none" \
		-virtfs "local,path=$(comma "$target"),mount_tag=target,security_model=none,multidevs=remap" \
		</dev/null >"$job/qemu" 2>&1
}

# Keeps the console's log of the job $1, run on kernel $2, as one of the last twenty; tells its name.
keep_log() {
	local log old
	mkdir -p "$cache/log"
	log=$cache/log/$(date +%Y%m%d-%H%M%S)-$2-$$.log
	cat "$1/qemu" "$1/console" >"$log" 2>/dev/null || true
	find "$cache/log" -name '*.log' | sort -r | tail -n +21 | while read -r old; do rm -f "$old"; done
	echo "$log"
}

# Waits for the VM of process $1 with the job's folder $2 to end, at most $3 seconds for it to start the
# command and $4 seconds in all. Says on stdout what went wrong, if something did.
await() {
	local pid=$1 job=$2 boot_limit=$3 limit=$4 start=$SECONDS
	while kill -0 "$pid" 2>/dev/null; do
		if [[ -e $job/status ]]; then
			return
		elif ((SECONDS - start >= limit)); then
			echo "not done after $limit s"
			return
		elif [[ ! -e $job/started ]] && ((SECONDS - start >= boot_limit)); then
			echo "not up after $boot_limit s"
			return
		fi
		sleep 0.05
	done
	if [[ -e $job/status ]]; then
		return
	elif [[ -e $job/started ]]; then
		echo "died while the command ran"
	else
		echo "died before the command started"
	fi
}

# Whether the VM of the job's folder $1 came as far as to its first program.
has_run_init() {
	grep -qs '^oxdp-vm: init' "$1/console"
}

# Runs a VM for the job's folder $1, passing on its output: kernel $2, accelerator $3, target folder $4, limits $5 and $6
# as `await` has them. What went wrong, if something did, is in `trouble` in that folder.
attempt() {
	local job=$1 kernel=$2 accel=$3 target=$4 boot_limit=$5 limit=$6 qemu out err
	exec_qemu "$job" "$kernel" "$target" "$accel" &
	qemu=$!
	# shellcheck disable=SC2064
	trap "kill -KILL $qemu 2>/dev/null; exit 125" INT TERM HUP
	tail -s 0.05 --pid="$qemu" -c +1 -f "$job/stdout" 2>/dev/null &
	out=$!
	tail -s 0.05 --pid="$qemu" -c +1 -f "$job/stderr" >&2 2>/dev/null &
	err=$!
	# In the background, so that a signal is acted on at once.
	await "$qemu" "$job" "$boot_limit" "$limit" >"$job/trouble" &
	wait $!
	kill -KILL "$qemu" 2>/dev/null || true
	wait "$qemu" "$out" "$err" 2>/dev/null || true
}

# boot KERNEL ACCELERATOR TARGET BOOT-LIMIT LIMIT COMMAND…: runs COMMAND in a VM, passing on its output.
# Returns its exit status, or 125 with an explanation. A function for a subshell: it sets traps.
boot() {
	local kernel=$1 accel=$2 target=$3 boot_limit=$4 limit=$5 job trouble log
	shift 5
	mkdir -p "$cache/jobs" "$target"
	# What a killed predecessor left.
	find "$cache/jobs" -mindepth 1 -maxdepth 1 -mmin +2880 -exec rm -rf {} +
	target=$(cd "$target" && pwd -P)
	job=$(mktemp -d "$cache/jobs/XXXXXX")
	# shellcheck disable=SC2064
	trap "rm -rf $(printf %q "$job")" EXIT
	write_job "$job" "$kernel" "$target" "$@"
	attempt "$job" "$kernel" "$accel" "$target" "$boot_limit" "$limit"
	# On a busy host the emulated timer may come so late that the kernel gives up on it, long before its first program.
	if [[ $(<"$job/trouble") == died* ]] && ! has_run_init "$job"; then
		say "VM with kernel $kernel ($accel) died before its first program; once more: $(keep_log "$job" "$kernel")"
		attempt "$job" "$kernel" "$accel" "$target" "$boot_limit" "$limit"
	fi
	trouble=$(<"$job/trouble")
	log=$(keep_log "$job" "$kernel")
	if [[ -n $trouble ]]; then
		tail -n 30 "$log" | tr -d '\r' >&2
		say "VM with kernel $kernel ($accel): $trouble; its log: $log"
		return 125
	fi
	return "$(<"$job/status")"
}
