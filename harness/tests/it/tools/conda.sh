# What the stand-in's etc/profile.d/conda.sh is: the command `conda` is a function, since it changes the shell.
# shellcheck shell=bash
CONDA_EXE=$(dirname "${BASH_SOURCE[0]}")/../../bin/conda
conda() {
  local text
  case $1 in
    activate) text=$("$CONDA_EXE" shell.posix "$@") || return; eval "$text" ;;
    *) "$CONDA_EXE" "$@" ;;
  esac
}
