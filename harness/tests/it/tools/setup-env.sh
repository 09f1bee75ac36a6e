# What the stand-in's share/spack/setup-env.sh is: the command `spack` is a function, since it changes the shell. It is
# exported, as the real one is.
# shellcheck shell=bash
export SPACK_ROOT
SPACK_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." >/dev/null && pwd)
PATH=$SPACK_ROOT/bin:$PATH
spack() {
  local text
  case $1 in
    load) text=$(command spack load --sh "$2") || return; eval "$text" ;;
    *) command spack "$@" ;;
  esac
}
export -f spack
