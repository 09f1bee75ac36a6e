# Packs the programs, man pages, completions, documentation and the Python module. Sourced; `release` says VERSION, TARGETS
# and SOURCE_DATE_EPOCH.
# shellcheck shell=bash

# make_files FOLDER: everything, into FOLDER/files.
make_files() {
  local target machine root="$1/root" files="$1/files"
  mkdir -p "$files"
  for target in "${TARGETS[@]}"; do
    machine=${target%%-*}
    rm -rf "$root"
    tree "$root" "$target"
    tarball "$root" "$files/nemo-slurm-$VERSION-$machine-linux.tar.gz"
    python3 scripts/lib/release/wheel.py "$VERSION" "$machine" "$root" "$files"
    make_deb "$root" "$machine" "$1/deb" "$files"
    make_rpm "$root" "$machine" "$1/rpm" "$files"
    python3 scripts/lib/release/bill.py "$target" >"$files/nemo-slurm-$VERSION-$machine-linux.cdx.json"
  done
  (cd "$files" && sha256sum -- nemo* >SHA256SUMS)
  chmod 644 "$files"/*
}

# tree FOLDER TARGET: what is installed, as below /usr.
tree() {
  local root=$1 bin own
  bin=$(binaries "$2") own=$(binaries "$(host)")/nemo-slurm
  install -d -m 755 "$root"/{bin,share/{man/man1,nemo-slurm,doc/nemo-slurm/docs,bash-completion/completions,zsh/site-functions,fish/vendor_completions.d}}
  install -m 755 "$bin/nemo-slurm" "$bin/nemo-harness" "$root/bin"
  # The pages and completions are those of this machine's program: it has the same sources.
  "$own" man "$root/share/man/man1" 2>/dev/null
  "$own" completions bash >"$root/share/bash-completion/completions/nemo-slurm"
  "$own" completions zsh >"$root/share/zsh/site-functions/_nemo-slurm"
  "$own" completions fish >"$root/share/fish/vendor_completions.d/nemo-slurm.fish"
  install -m 644 harness/python/nemo_harness.py "$root/share/nemo-slurm"
  install -m 644 README.md CHANGELOG.md LICENSE "$root/share/doc/nemo-slurm"
  install -m 644 docs/*.md "$root/share/doc/nemo-slurm/docs"
  find "$root" -type d -exec chmod 755 {} + -o -type f ! -path "$root/bin/*" -exec chmod 644 {} +
}

# tarball FOLDER FILE: its files are below a folder that is called as the tarball is.
tarball() {
  local top; top=$(basename "$2" .tar.gz)
  tar --create --directory "$1" --transform "s,^\.,$top," --sort=name --mtime="@$SOURCE_DATE_EPOCH" \
    --owner=0 --group=0 --numeric-owner --format=ustar . | gzip -9n >"$2"
}

# usr ROOT FOLDER: the tree below FOLDER/usr, with compressed man pages, as distributions have it.
usr() {
  install -d -m 755 "$2"
  cp -a "$1" "$2/usr"
  gzip -9n "$2"/usr/share/man/man1/*.1
}

make_deb() {
  local root=$1 folder=$3 files=$4 machine
  case $2 in x86_64) machine=amd64 ;; aarch64) machine=arm64 ;; *) machine=$2 ;; esac
  rm -rf "$folder"
  usr "$root" "$folder"
  install -d -m 755 "$folder"/{DEBIAN,usr/lib/python3/dist-packages}
  mv "$folder/usr/share/nemo-slurm/nemo_harness.py" "$folder/usr/lib/python3/dist-packages"
  rmdir "$folder/usr/share/nemo-slurm"
  mv "$folder/usr/share/zsh/site-functions" "$folder/usr/share/zsh/vendor-completions"
  mv "$folder/usr/share/doc/nemo-slurm/LICENSE" "$folder/usr/share/doc/nemo-slurm/copyright"
  cat >"$folder/DEBIAN/control" <<CONTROL
Package: nemo-slurm
Version: $VERSION
Architecture: $machine
Maintainer: The authors of nemo-slurm <nemo-slurm@localhost>
Installed-Size: $(du -ks --apparent-size "$folder/usr" | cut -f 1)
Section: science
Priority: optional
Suggests: slurm-client, python3
Description: experiments on Slurm, from a TOML file to a table of results
 Training survives preemption, time limits and node failures. Both programs are
 static and need no daemon. The module nemo_harness for Python is included.
CONTROL
  chmod 644 "$folder/DEBIAN/control"
  # Several threads would make other bytes on another machine; older versions have only one.
  local one=()
  case $(dpkg-deb --help) in *--threads-max*) one=(--threads-max=1) ;; esac
  dpkg-deb --root-owner-group -Zxz "${one[@]}" --build "$folder" "$files/nemo-slurm_${VERSION}_$machine.deb" >/dev/null
}

make_rpm() {
  local root=$1 machine=$2 folder=$3 files=$4
  rm -rf "$folder"
  usr "$root" "$folder/tree"
  cat >"$folder/nemo-slurm.spec" <<SPEC
Name: nemo-slurm
Version: $VERSION
Release: 1
Summary: Experiments on Slurm, from a TOML file to a table of results
License: Apache-2.0
AutoReqProv: no
%description
Training survives preemption, time limits and node failures. Both programs are static and need no daemon.
The module nemo_harness for Python is in %{_datadir}/nemo-slurm.
%install
cp -a "$folder/tree/usr" "%{buildroot}/"
%files
$(cd "$folder/tree" && find usr \( -type f -o -path '*/nemo-slurm' -type d -o -path '*/nemo-slurm/docs' \) -printf '%y /%p\n' | sort | sed 's/^d /%dir /; s/^f //')
SPEC
  # The payload is one that CentOS 7 reads. Nothing is stripped, and no library is looked for: there is none.
  local define=(
    "_topdir $folder/top" "_rpmdir $folder/rpms" "_prefix /usr" "_buildhost localhost"
    "use_source_date_epoch_as_buildtime 1" "clamp_mtime_to_source_date_epoch 1" "source_date_epoch_from_changelog 0"
    "_binary_payload w9.gzdio" "_build_id_links none" "debug_package %{nil}" "__os_install_post %{nil}"
  )
  rpmbuild -bb --quiet --target "$machine-linux" "${define[@]/#/--define=}" "$folder/nemo-slurm.spec" >"$folder/log" 2>&1 ||
    { cat "$folder/log" >&2; die "rpmbuild failed"; }
  cp "$folder/rpms/$machine/nemo-slurm-$VERSION-1.$machine.rpm" "$files"
}
