# The Slurm of another Debian: its packages in a root folder of their own, which is entered with own mounts and an own
# network. Sourced by slurm-dev, which says `DIR` (the cluster) and `SUITE`.
# shellcheck shell=bash
# shellcheck disable=SC2153 # DIR is slurm-dev's

ROOTS=${SLURM_DEV_ROOTS:-/var/lib/nemo-slurm-dev}
ROOT=$ROOTS/$SUITE
SUITE_PACKAGES=(slurmctld slurmd slurmdbd slurm-client munge mariadb-server slurm-wlm-basic-plugins
  slurm-wlm-mysql-plugin python3 procps strace bsdutils)

# Whether this shell already runs in the root of the suite.
in_suite() { [ "$(cat /etc/slurm-dev-suite 2>/dev/null)" = "$SUITE" ]; }

# --- the root ------------------------------------------------------------------------------------

# Makes the root if it isn't there: once for all clusters and clones. An interrupted one is made again.
make_root() {
  [ ! -e "$ROOT/etc/slurm-dev-suite" ] || return 0
  need_root
  mkdir -p "$ROOTS"
  (
    flock 9
    [ ! -e "$ROOT/etc/slurm-dev-suite" ] || exit 0
    build_root "$ROOT.new"
    mv "$ROOT.new" "$ROOT"
  ) 9>"$ROOT.lock"
}
build_root() {
  local new=$1 log=$ROOT.log began=$SECONDS
  command -v debootstrap >/dev/null || apt_or_die "$log" apt-get install -y -q --no-install-recommends debootstrap
  say "making a root of $SUITE in $ROOT …"
  rm -rf --one-file-system "$new"
  { bootstrap "$new" && install_packages "$new"; } >>"$log" 2>&1 </dev/null || {
    tail -n 15 "$log" >&2
    die "there is no root of $SUITE: debootstrap or apt-get failed" "$log has the whole output"
  }
  echo "$SUITE" >"$new/etc/slurm-dev-suite"
  say "the root of $SUITE is ready ($((SECONDS - began)) s)"
}
apt_or_die() {
  local log=$1; shift
  if ! { patient_apt "$log" apt-get update -q && patient_apt "$log" "$@"; }; then
    die "apt-get failed: $*" "$log has the whole output"
  fi
}
bootstrap() {
  local new=$1 script=/usr/share/debootstrap/scripts/$SUITE url http_proxy=${http_proxy:-}
  url=${SLURM_DEV_MIRROR:-$(mirror)}
  [ -n "$url" ] || die "apt on this machine has no mirror of Debian" "SLURM_DEV_MIRROR=URL scripts/slurm-dev $VERB"
  [ -e "$script" ] || script=${script%/*}/sid # a suite that is newer than debootstrap
  eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
  http_proxy=$http_proxy debootstrap --variant=minbase --include=ca-certificates "$SUITE" "$new" "$url" "$script"
}
install_packages() {
  local new=$1
  printf '#!/bin/sh\nexit 101\n' >"$new/usr/sbin/policy-rc.d"
  chmod 755 "$new/usr/sbin/policy-rc.d"
  apt-config dump | grep -i '^Acquire::.*proxy' >"$new/etc/apt/apt.conf.d/90proxy" || true
  # The index of a suite under development may be stale on a mirror.
  echo 'Acquire::Check-Valid-Until "false";' >"$new/etc/apt/apt.conf.d/90valid"
  # shellcheck disable=SC2016 # expanded inside
  unshare --mount --propagation private bash -c '
    new=$1; shift
    mount --bind /proc "$new/proc"
    exec chroot "$new" sh -c "apt-get update -q && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $* && apt-get clean"
  ' sh "$new" "${SUITE_PACKAGES[@]}"
}

# --- its namespaces ------------------------------------------------------------------------------

# A process that does nothing but hold the mounts and the network, as long as the cluster runs.
holder() {
  local pid
  pid=$(cat "$DIR/suite.pid" 2>/dev/null) && [ -n "$pid" ] && belongs "$pid" && echo "$pid"
}
hold() {
  [ -z "$(holder)" ] || return 0
  rm -f "$DIR/suite.pid"
  # shellcheck disable=SC2016 # expanded inside
  DIR=$DIR ROOT=$ROOT REPOSITORY=$PWD setsid --fork unshare --mount --net --propagation private bash -c '
    set -e
    ip link set lo up
    ip addr add 192.0.2.1/32 dev lo    # slurmdbd wants an address that is not loopback
    for folder in proc sys dev; do mount --rbind /$folder "$ROOT/$folder"; done
    # What is not the system itself is the host'"'"'s: homes, work trees, temporary files.
    for folder in /*; do
      case $folder in
        /bin | /boot | /dev | /etc | /lib* | /media | /mnt | /proc | /run | /sbin | /sys | /usr | /var | /lost+found) ;;
        *) [ -d "$folder" ] && mkdir -p "$ROOT$folder" && mount --rbind "$folder" "$ROOT$folder" ;;
      esac
    done
    for folder in "$DIR" "$REPOSITORY"; do
      [ -e "$ROOT$folder" ] || { mkdir -p "$ROOT$folder"; mount --bind "$folder" "$ROOT$folder"; }
    done
    cp /etc/hosts "$ROOT/etc/hosts"
    echo $$ >"$DIR/suite.pid.new"
    mv "$DIR/suite.pid.new" "$DIR/suite.pid"
    exec chroot "$ROOT" env -i HOLDS="$DIR/" sleep infinity
  ' </dev/null >>"$DIR/suite.log" 2>&1
  local limit=$((SECONDS + 10))
  until [ -n "$(holder)" ]; do
    [ $SECONDS -lt $limit ] || { tail -n 5 "$DIR/suite.log" >&2; die "the root of $SUITE can't be entered"; }
    sleep 0.05
  done
}
# inside COMMAND…: runs it in the root, with the same environment and working folder.
inside() {
  local pid; pid=$(holder) || die "the Slurm of $SUITE does not run" "SLURM_DEV_SUITE=$SUITE scripts/slurm-dev start"
  nsenter --target "$pid" --mount --net --root --wdns="$PWD" "$@"
}

# The verbs of slurm-dev for another suite: each runs the same script inside.
suite_verb() {
  case $VERB in
    install) make_root ;;
    start) make_root; locked "$@"; hold; SLURM_DEV_LOCKED=1 inside "$SELF" "$@" ;;
    stop)
      locked "$@"
      [ -n "$(holder)" ] || return 0
      SLURM_DEV_LOCKED=1 inside "$SELF" stop
      end KILL 5 "$(holder)"
      ;;
    status) if [ -n "$(holder)" ]; then inside "$SELF" status; else echo "the Slurm of $SUITE does not run"; return 1; fi ;;
    run) inside "$SELF" "$@" ;;
    *) inside "$SELF" "$@" ;;
  esac
}
