# Shared by the scripts: messages, and what must be on the machine. Sourced, from the repository's root.
# shellcheck shell=bash
. scripts/lib/apt.sh
. scripts/lib/apptainer.sh

say() { echo "$PROGRAM: $*" >&2; }
die() {
  echo "$PROGRAM: error: $1" >&2
  [ $# -lt 2 ] || printf '\nhint: %s\n' "$2" >&2
  exit "${EXIT:-1}"
}

# apt PACKAGE…: installs them, as root or by sudo; fails with the command to type.
apt() {
  local sudo=()
  if [ "$UID" != 0 ]; then sudo=(sudo -n); fi
  if ! command -v apt-get >/dev/null || { [ "$UID" != 0 ] && ! sudo -n true 2>/dev/null; }; then
    die "this machine lacks: $*" "sudo apt-get install $*   (or what your system calls them)"
  fi
  say "installing $* …"
  local log; log=$(mktemp)
  if ! { patient_apt "$log" "${sudo[@]}" apt-get update -q &&
    patient_apt "$log" "${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "$@"; }; then
    tail -n 15 "$log" >&2
    die "apt-get could not install $*" "$log has the whole output"
  fi
  rm -f "$log"
}

# need_program NAME PACKAGE: a program of the system, installed where it is missing.
need_program() { command -v "$1" >/dev/null || apt "$2"; }

# A Rust toolchain that is new enough, and a linker with the static C library.
need_rust() {
  [ -d "$HOME/.cargo/bin" ] && PATH=$HOME/.cargo/bin:$PATH
  local wanted found
  wanted=$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)
  local get="install it with rustup: https://www.rust-lang.org/tools/install"
  command -v cargo >/dev/null || die "Rust is not on this machine ($wanted or newer is needed)" "$get"
  found=$(cargo --version | awk '{ print $2 }') || die "cargo does not work here" "$get"
  [ "$(printf '%s\n' "$wanted" "${found%%-*}" | sort -V | head -n 1)" = "$wanted" ] ||
    die "Rust $found is too old: $wanted or newer is needed" "rustup update stable"
  command -v cc >/dev/null || apt gcc libc6-dev
}

# rust_component NAME COMMAND: a part of the toolchain that only checks need.
rust_component() {
  cargo "$2" --version >/dev/null 2>&1 && return
  command -v rustup >/dev/null || die "cargo $2 is not on this machine" "install the component $1 of this Rust toolchain"
  rustup component add "$1" >&2
}

# one_at_a_time COMMAND…: in this shell, while no other process of this clone does so. What two scripts install they install once.
one_at_a_time() {
  local lock
  mkdir -p "${CARGO_TARGET_DIR:-target}"
  exec {lock}>"${CARGO_TARGET_DIR:-target}/setup.lock"
  flock "$lock"
  "$@"
  exec {lock}>&-
}

# The folder of the release binaries: builds name their target (see .cargo/config.toml).
release_dir() { echo "${CARGO_TARGET_DIR:-target}/$(rustc -vV | sed -n 's/^host: //p')/release"; }

# PyTorch and scikit-learn of the system's own Python, for the example of several processes.
need_torch() { /usr/bin/python3 -c 'import torch, sklearn' 2>/dev/null || apt python3-torch python3-sklearn; }

# A virtual environment with the example's packages in .venv, first in PATH. Nothing outside it is touched.
need_python() { one_at_a_time install_python; }
install_python() {
  command -v python3 >/dev/null || apt python3 python3-venv
  local wanted=examples/digits/requirements.txt stamp=.venv/.nemo-requirements
  if ! cmp -s "$wanted" "$stamp" || ! .venv/bin/python3 -c '' 2>/dev/null; then
    say "installing numpy and scikit-learn into .venv …"
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt python3-venv
    rm -rf .venv
    python3 -m venv .venv >&2 || die "python3 -m venv .venv failed"
    .venv/bin/python3 -m pip install -q --disable-pip-version-check -r "$wanted" >&2 </dev/null ||
      die "pip could not install what $wanted lists"
    cp "$wanted" "$stamp"
  fi
  PATH=$PWD/.venv/bin:$PATH
}

# pip_packages NAME FILE: what a requirements.txt lists, in a virtual environment of the system's Python below target/, first
# in PATH.
pip_packages() { one_at_a_time install_pip_packages "$@"; }
install_pip_packages() {
  local name=$1 wanted=$2 folder
  folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/programs/$name")
  if ! cmp -s "$wanted" "$folder/requirements.txt"; then
    say "installing what $wanted lists into $folder …"
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt python3-venv
    rm -rf "$folder"
    python3 -m venv "$folder" >&2
    "$folder/bin/python3" -m pip install -q --disable-pip-version-check -r "$wanted" >&2 </dev/null || die "pip could not install what $wanted lists"
    cp "$wanted" "$folder/requirements.txt"
  fi
  PATH=$folder/bin:$PATH
}

# The tests of nemo_harness.py, with the oldest Python that is here too.
test_python() {
  local version
  command -v python3 >/dev/null || apt python3
  for version in python3 python3.8; do
    "$version" -c '' 2>/dev/null || continue
    (cd harness/python && "$version" -m unittest discover -s tests)
  done
}

# MYPY is the type checker, in a virtual environment below target/.
need_mypy() { one_at_a_time install_mypy; }
install_mypy() {
  local folder=${CARGO_TARGET_DIR:-target}/mypy
  MYPY=$folder/bin/mypy
  if ! "$MYPY" --version >/dev/null 2>&1; then
    say "installing mypy into $folder …"
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt python3-venv
    rm -rf "$folder"
    python3 -m venv "$folder" >&2 || die "python3 -m venv $folder failed"
    "$folder/bin/python3" -m pip install -q --disable-pip-version-check 'mypy>=1.10' >&2 </dev/null ||
      die "mypy could not be installed"
  fi
}

# NEMO_TEST_TRACKERS is a Python with trackers of experiments, and uv beside it, in a virtual environment below target/.
need_trackers() { one_at_a_time install_trackers; }
install_trackers() {
  local folder
  folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/trackers")
  NEMO_TEST_TRACKERS=$folder/bin/python3
  if ! "$NEMO_TEST_TRACKERS" -c 'import wandb, mlflow, alembic, tensorboard, uv' 2>/dev/null; then
    say "installing W&B, MLflow and TensorBoard into $folder …"
    python3 -c 'import ensurepip, venv' 2>/dev/null || apt python3-venv
    rm -rf "$folder"
    python3 -m venv "$folder" >&2 || die "python3 -m venv $folder failed"
    "$NEMO_TEST_TRACKERS" -m pip install -q --disable-pip-version-check \
      'wandb>=0.18' 'mlflow-skinny>=2.16' 'sqlalchemy>=2' alembic tensorboard uv >&2 </dev/null ||
      die "pip could not install the trackers"
  fi
  export NEMO_TEST_TRACKERS
}

# need_slurm NODES FOLDER PORT: the Slurm of SLURM_DEV_DIR that runs already, or one for this script alone, which ends with it.
need_slurm() {
  export SLURM_DEV_DIR=${SLURM_DEV_DIR:-$2} SLURM_DEV_PORT=${SLURM_DEV_PORT:-$3} SLURM_DEV_NODES=$1
  if ! scripts/slurm-dev status >/dev/null 2>&1; then
    trap 'scripts/slurm-dev stop' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM
    scripts/slurm-dev start
  fi
  eval "$(scripts/slurm-dev env)"
}

# The command `module`, of Lmod or of Environment Modules.
need_modules() {
  [ -e /usr/share/lmod/lmod/init/bash ] || [ -e /usr/share/modules/init/bash ] || apt environment-modules
}

# NEMO_TEST_APPTAINER is Apptainer, and beside it is an image, below target/. It can't be had everywhere: only the `sid` of
# Debian has it, and to enter that takes root. Then its test is left out, and that is said.
need_apptainer() {
  local folder log
  folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/apptainer")
  log=$(mktemp)
  if ! "$folder/apptainer" exec "$folder/image" true 2>/dev/null; then
    say "installing Apptainer into $folder …"
    { [ "$UID" = 0 ] && make_apptainer "$folder" "$log" && "$folder/apptainer" exec "$folder/image" true >"$log" 2>&1; } || {
      tail -n 5 "$log" >&2
      say "Apptainer can't be had here: its test is left out"
      return
    }
  fi
  rm -f "$log"
  export NEMO_TEST_APPTAINER=$folder/apptainer
}

# PyTorch of the system, and the trainers of the examples in a virtual environment below target/, first in PATH.
# (PyPI's PyTorch has 5 GB with what it needs for GPUs; Debian's has 0.2 GB.)
need_trainers() { one_at_a_time install_trainers; }
install_trainers() {
  local folder python=/usr/bin/python3 wanted=examples/requirements.txt
  folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/trainers")
  "$python" -c 'import torch, ensurepip, venv' 2>/dev/null || apt python3-torch python3-venv
  if ! cmp -s "$wanted" "$folder/requirements.txt" || ! "$folder/bin/python3" -c 'import lightning, nemo_harness' 2>/dev/null; then
    say "installing Lightning, Transformers, submitit and scikit-learn into $folder …"
    rm -rf "$folder"
    "$python" -m venv --system-site-packages "$folder" >&2 || die "$python -m venv $folder failed"
    local pip=("$folder/bin/python3" -m pip install -q --disable-pip-version-check)
    "${pip[@]}" -r "$wanted" >&2 </dev/null || die "pip could not install what $wanted lists"
    # By itself: Debian's version (1.13.0a0) is older than 1.13.0 in pip's eyes, which would fetch another PyTorch.
    "${pip[@]}" --no-deps lightning==2.2.5 >&2 </dev/null || die "pip could not install lightning"
    # That PyTorch can't import its sharded tensors with Python 3.11; Lightning only wants to register hooks for them.
    sed -i 's/^        if _TORCH_GREATER_EQUAL_2_1:$/        if True:/' "$folder"/lib/python3*/site-packages/lightning/pytorch/core/module.py
    "${pip[@]}" --no-deps --editable harness/python >&2 </dev/null || die "pip could not install harness/python"
    cp "$wanted" "$folder/requirements.txt"
  fi
  PATH=$folder/bin:$PATH
}
