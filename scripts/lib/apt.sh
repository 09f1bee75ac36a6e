# Installing packages with apt-get, where another apt may be at work. Sourced.
# shellcheck shell=bash

# patient_apt LOG COMMAND…: runs an apt-get, its output into LOG; one that another apt locks out is tried again for
# 15 minutes. (apt's own DPkg::Lock::Timeout waits for the lock of packages, not for the one of the lists.)
patient_apt() {
  local log=$1 limit=$((SECONDS + 900)) told=''
  shift
  until "$@" >"$log" 2>&1 </dev/null; do
    grep -qE 'Could not get lock|Unable to (acquire|lock)' "$log" && [ $SECONDS -lt $limit ] || return 1
    [ -n "$told" ] || say "another apt is at work: waiting for it …"
    told=1
    sleep 2
  done
}

# without_services COMMAND…: what is installed meanwhile starts no services of its own.
without_services() {
  local policy=/usr/sbin/policy-rc.d own='' code=0
  if [ ! -e $policy ]; then
    own=1
    printf '#!/bin/sh\nexit 101\n' >$policy
    chmod 755 $policy
  fi
  "$@" || code=$?
  [ -z "$own" ] || rm -f $policy
  return $code
}

# Where apt finds Debian, on this machine.
mirror() {
  # shellcheck disable=SC2016 # the fields are apt's
  apt-get indextargets --format '$(REPO_URI) $(LABEL)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "Debian" && !found { found = 1; print $1 }'
}
