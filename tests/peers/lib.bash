# shellcheck shell=bash disable=SC2034
# SPDX-License-Identifier: LGPL-2.1-only OR BSD-2-Clause
#
# Where the peers are. To be sourced.

peers_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
# shellcheck source=../vm/lib.bash
source "$peers_dir/../vm/lib.bash"

# Seen by the host and by VMs at the same path, unlike the cache.
built=${CARGO_TARGET_DIR:-$checkout/target}/peers
[[ $built == /* ]] || built=$PWD/$built
