#!/bin/sh
# Builds a folder tree with the BGP daemons of a newer Debian, to measure against (PEERS_ROOT=DIR make bench).
# Needs root, debootstrap and a network. APT_OPTIONS goes to apt-get (a mirror that lags behind the suite's validity wants
# APT_OPTIONS="-o Acquire::Check-Valid-Until=false").
# usage: peers_root.sh DIR [SUITE [MIRROR]]     remove: peers_root.sh --remove DIR
set -eu

fail() { echo "peers_root.sh: $1" >&2; exit 2; }

release() {
  for mount in dev/pts dev proc; do
    umount "$1/$mount" 2>/dev/null || true
  done
}

if [ "${1:-}" = --remove ]; then
  root=${2:?which folder?}
  release "$root"
  # What is still mounted below must not be emptied with it.
  grep -q " $root/" /proc/mounts && fail "something is still mounted below $root; end what runs in there first"
  rm -rf "$root"
  exit 0
fi

root=${1:?usage: peers_root.sh DIR [SUITE [MIRROR]]}
suite=${2:-sid}  # where the newest versions are
mirror=${3:-}
[ "$(id -u)" = 0 ] || fail "a chroot is made as root: run it with sudo"
command -v debootstrap >/dev/null || fail "debootstrap is missing: apt-get install debootstrap"
case $root in /*) ;; *) fail "name the folder by its whole path, not $root" ;; esac

if [ ! -e "$root/.debootstrapped" ]; then
  # shellcheck disable=SC2086
  debootstrap --variant=minbase "$suite" "$root" $mirror
  touch "$root/.debootstrapped"
fi
# The packages' services must not start in there: the bench runs the programs itself.
printf '#!/bin/sh\nexit 101\n' > "$root/usr/sbin/policy-rc.d"
chmod 755 "$root/usr/sbin/policy-rc.d"
cp /etc/resolv.conf "$root/etc/resolv.conf"
mountpoint -q "$root/proc" || mount -t proc proc "$root/proc"
mountpoint -q "$root/dev" || mount --bind /dev "$root/dev"

inside() { DEBIAN_FRONTEND=noninteractive chroot "$root" "$@"; }
# shellcheck disable=SC2086
inside apt-get ${APT_OPTIONS:-} -qq update
# BIRD 2 and 3 and the others replace each other in places: BIRD 3 is unpacked beside the rest.
inside apt-get -qq install -y --no-install-recommends bird2 frr gobgpd openbgpd iproute2 < /dev/null > /dev/null
inside sh -ec '
  mkdir -p /opt/bird3 && cd /opt/bird3
  [ -x usr/sbin/bird ] || { chown _apt . 2>/dev/null || true; apt-get -qq download bird3; dpkg -x bird3_*.deb .; }
  apt-get -qq install -y --no-install-recommends $(apt-cache depends bird3 2>/dev/null | sed -n "s/^ *Depends: \(lib[^<>]*\)$/\1/p") < /dev/null > /dev/null
  mkdir -p /run/openbgpd /run/frr /run/bird
  chown frr:frr /run/frr
'
for program in usr/sbin/bird opt/bird3/usr/sbin/bird usr/lib/frr/bgpd usr/bin/gobgpd usr/sbin/bgpd; do
  [ -x "$root/$program" ] || echo "peers_root.sh: $suite brought no /$program" >&2
done
echo "PEERS_ROOT=$root"
