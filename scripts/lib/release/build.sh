# Builds both programs so that the same sources give the same bytes wherever they lie. Sourced, from the repository's root.
# shellcheck shell=bash

host() { rustc -vV | sed -n 's/^host: //p'; }

# The targets that can be built here: this machine's, and 64-bit ARM where its Rust and a linker are installed.
targets() {
  local own other=aarch64-unknown-linux-gnu
  own=$(host)
  echo "$own"
  if [ "$own" != $other ] && [ -d "$(rustc --print sysroot)/lib/rustlib/$other/lib" ] && command -v aarch64-linux-gnu-gcc >/dev/null; then
    echo $other
  fi
}

# The folder of a target's programs.
binaries() { echo "${CARGO_TARGET_DIR:-target}/$1/release"; }

# build TARGET: these flags are added to those of .cargo/config.toml.
build() {
  local name; name=$(tr 'a-z-' 'A-Z_' <<<"$1")
  local -a environment=(
    "CARGO_TARGET_${name}_RUSTFLAGS=--remap-path-prefix=$PWD=/nemo-slurm --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  )
  if [ "$1" != "$(host)" ]; then environment+=("CARGO_TARGET_${name}_LINKER=aarch64-linux-gnu-gcc"); fi
  env "${environment[@]}" cargo build --release --locked --workspace --target "$1"
}

# build_again FOLDER: builds the commit once more in a clone there, and compares the programs.
build_again() {
  local program target
  git clone -q . "$1"
  for target in "${TARGETS[@]}"; do
    (cd "$1" && CARGO_TARGET_DIR=$1/target build "$target")
    for program in nemo-slurm nemo-harness; do
      cmp "$(binaries "$target")/$program" "$1/target/$target/release/$program" ||
        die "$program for $target is another one when it is built in $1"
    done
  done
  say "built again in $1: the same programs"
}

# Git's, or that of the files of an archive of git's, which have it.
commit_time() { if [ -e .git ]; then git log -1 --format=%ct; else stat -c %Y Cargo.lock; fi; }
