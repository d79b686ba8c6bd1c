# shellcheck shell=bash disable=SC2154
# SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
#
# Gets packages of any Debian suite into the cache, from the archive that the machine's own apt uses. To be
# sourced after lib.bash.

# One at a time fills the cache; until this process ends.
lock_cache() {
	mkdir -p "$cache"
	exec {lock}>"$cache/lock"
	flock "$lock"
}

# The address of Debian's main archive, as this machine's apt knows it.
archive() {
	# shellcheck disable=SC2016
	apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' \
		'Component: main' | sed -n 1p
}

# A fresh container has no package lists.
need_package_lists() {
	[[ -n $(archive) ]] || update_package_lists
}

update_package_lists() {
	say "updating the machine's package lists"
	with_retries apt-get update || die "apt-get update failed"
}

# Downloads Debian packages of suite $1 into the current folder: those that $2 leads to and whose name
# matches $3, whole. Nothing of it touches the machine's own apt.
download() {
	local suite=$1 root=$2 pattern=$3 uri keyring=/usr/share/keyrings/debian-archive-keyring.gpg
	local -a packages
	need_package_lists
	uri=$(archive)
	[[ -n $uri ]] || die "no Debian archive among this machine's apt sources"
	mkdir -p apt/lists/partial apt/cache/archives/partial
	echo "deb [arch=amd64 signed-by=$keyring] $uri $suite main" >apt/sources
	local -a options=(
		-o "Dir::Etc::SourceList=$PWD/apt/sources" -o Dir::Etc::SourceParts=/dev/null
		-o "Dir::State::Lists=$PWD/apt/lists" -o Dir::State::status=/dev/null -o "Dir::Cache=$PWD/apt/cache"
		-o Acquire::Languages=none -o Acquire::IndexTargets::deb::DEP-11::DefaultEnabled=false
		-o APT::Sandbox::User=root -o APT::Update::Error-Mode=any
	)
	with_retries apt-get "${options[@]}" update || die "cannot get the package lists of $suite"
	mapfile -t packages < <(apt-cache "${options[@]}" depends --recurse --important "$root" |
		grep -xE "$pattern" | sort -u)
	((${#packages[@]})) || die "$suite has no $root that leads to such packages"
	with_retries apt-get "${options[@]}" download "${packages[@]}" || die "cannot download ${packages[*]}"
}

# Work on a download happens in a folder of its own: what is moved out of it is whole.
begin() {
	rm -rf "$cache/partial"
	mkdir -p "$cache/partial"
	cd "$cache/partial" || die "cannot write to $cache"
}

finish() {
	cd / || return
	rm -rf "$cache/partial"
}
