#!/bin/bash
# Installs what the demo and the tests need besides Go, and checks that it is
# there. Debian 12 or newer. Quick when nothing is missing; run as root otherwise.
#
#   scripts/setup.sh           install what is missing, then check
#   scripts/setup.sh --check   check only
set -euo pipefail
cd "$(dirname "$0")/.."

packages=(
	acl attr btrfs-progs ca-certificates e2fsprogs fio fuse3 gcc git iproute2
	libc6-dev make openssh-client openssh-server procps rsync sqlite3 strace
	stress-ng util-linux xfsprogs
)
# One command of each package that is called by name.
commands=(
	cc fio fusermount3 getfacl getfattr git ip losetup make mkfs.btrfs mkfs.ext4
	mkfs.xfs mount pgrep rsync script setfacl setfattr sqlite3 ssh ssh-keygen
	sshd strace stress-ng umount xfs_io
)
PATH=$PATH:/usr/sbin:/sbin:/usr/local/go/bin

say() { echo "setup: $*" >&2; }

missing_packages() {
	local p
	for p in "${packages[@]}"; do
		[[ $(dpkg-query -W -f='${db:Status-Status}' "$p" 2>/dev/null) == installed ]] || echo "$p"
	done
}

install_packages() {
	local missing
	mapfile -t missing < <(missing_packages)
	((${#missing[@]})) || return 0
	if ((EUID != 0)); then
		say "these packages are missing, and installing them needs root: ${missing[*]}"
		say "as root: apt-get update && apt-get install ${missing[*]}"
		return 1
	fi
	say "installing ${missing[*]}"
	# The tests start an sshd of their own: the package's must not come up and
	# listen only because it was installed for them.
	local policy=/usr/sbin/policy-rc.d
	if [[ ! -e $policy ]]; then
		trap 'rm -f /usr/sbin/policy-rc.d' EXIT
		printf '#!/bin/sh\nexit 101\n' >"$policy"
		chmod 755 "$policy"
	fi
	export DEBIAN_FRONTEND=noninteractive
	apt-get -qq -o DPkg::Lock::Timeout=300 update
	apt-get -qq -y -o DPkg::Lock::Timeout=300 --no-install-recommends install "${missing[@]}" >/dev/null </dev/null
}

# What packages do not bring: a device, a directory.
prepare() {
	((EUID == 0)) || return 0
	[[ -e /dev/fuse ]] || modprobe fuse 2>/dev/null || true
	[[ -e /dev/loop-control ]] || modprobe loop 2>/dev/null || true
	mkdir -p /run/sshd # sshd starts only where this is
}

check() {
	local bad=0 c wanted
	fail() {
		say "MISSING: $*"
		bad=1
	}
	((EUID == 0)) || fail "root: mounts, xattrs of the trusted namespace and devices need it"
	for c in "${commands[@]}"; do
		command -v "$c" >/dev/null || fail "the command $c"
	done
	if [[ ! -c /dev/fuse ]]; then
		fail "/dev/fuse: load the module fuse, or give the container this device"
	elif ! (: <>/dev/fuse) 2>/dev/null; then
		fail "/dev/fuse can't be opened: a container needs --device /dev/fuse --cap-add SYS_ADMIN"
	fi
	[[ -c /dev/loop-control ]] || fail "/dev/loop-control: load the module loop, or give the container loop devices"
	wanted=$(sed -n 's/^go //p' go.mod)
	if ! command -v go >/dev/null; then
		fail "Go $wanted or newer"
		say "  get it from https://go.dev/dl/ and unpack it:"
		say "  curl -fL https://go.dev/dl/go$wanted.linux-$(dpkg --print-architecture).tar.gz | tar -C /usr/local -xz"
	elif ! go env GOVERSION >/dev/null 2>&1; then
		fail "Go $wanted or newer; $(command -v go) is older and may not fetch a newer one (GOTOOLCHAIN)"
		say "  get it from https://go.dev/dl/, or set GOTOOLCHAIN=auto"
	fi
	return $bad
}

command -v dpkg-query >/dev/null || {
	say "this is no Debian; install what these packages hold, then run make without it: ${packages[*]}"
	exit 1
}
if [[ ${1-} != --check ]]; then
	install_packages
	prepare
fi
check
