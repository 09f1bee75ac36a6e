# Apptainer for the tests, in a folder of its own. Debian has it in `sid` alone, whose C library is newer than this system's,
# so it runs in a root of that. Sourced.
# shellcheck shell=bash

# make_apptainer FOLDER LOG: makes FOLDER/apptainer, a program, and FOLDER/image, which has nothing but busybox.
make_apptainer() {
  local folder=$1 log=$2
  rm -rf --one-file-system "$folder"
  mkdir -p "$folder/root" "$folder/apt/lists/partial" "$folder/apt/archives/partial"
  apptainer_packages "$folder" "$log" && apptainer_root "$folder" && apptainer_image "$folder" && apptainer_program "$folder"
}
apptainer_packages() {
  local folder=$1 log=$2 url package options
  url=$(mirror)
  [ -n "$url" ] || { echo "apt has no mirror of Debian" >"$log"; return 1; }
  echo "deb $url sid main" >"$folder/apt/sources"
  options=(-q -o "Dir::Etc::SourceList=$folder/apt/sources" -o Dir::Etc::SourceParts=- -o "Dir::State::Lists=$folder/apt/lists"
    -o "Dir::Cache=$folder/apt" -o Acquire::Languages=none -o Acquire::Check-Valid-Until=false -o APT::Sandbox::User=root)
  patient_apt "$log" apt-get "${options[@]}" update || return 1
  (cd "$folder/apt/archives" && patient_apt "$log" apt-get "${options[@]}" download \
    apptainer busybox-static libc6 libgcc-s1 libseccomp2 libsqlite3-0) || return 1
  for package in "$folder"/apt/archives/*.deb; do dpkg-deb --extract "$package" "$folder/root" || return 1; done
  rm -rf "$folder/apt"
}
apptainer_root() {
  local root=$1/root name
  for name in bin sbin lib lib64; do [ -e "$root/$name" ] || ln -s "usr/$name" "$root/$name"; done
  mkdir -p "$root/usr/sbin" "$root/var/tmp" "$root/.old"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  touch "$root/etc/hosts" "$root/etc/resolv.conf" "$root/etc/localtime"
  # All capabilities are more than a root in a container has to give.
  sed -i 's/^root default capabilities = .*/root default capabilities = no/' "$root/etc/apptainer/apptainer.conf"
}
apptainer_image() {
  local image=$1/image name
  mkdir -p "$image"/{bin,dev,etc,home,proc,root,sys,tmp,var/tmp}
  touch "$image"/etc/{passwd,group,hosts,resolv.conf,localtime}
  cp "$1/root/bin/busybox" "$image/bin/"
  for name in sh sleep mkdir mv true; do ln -s busybox "$image/bin/$name"; done
}
# Its root is turned to (Apptainer refuses to run after a mere chroot), with this machine's other folders in it.
apptainer_program() {
  cat >"$1/apptainer" <<'END'
#!/bin/sh
exec unshare --mount --propagation private sh -ec '
root=$1 cwd=$PWD
shift
mount --bind "$root" "$root"
for folder in /*; do
  case $folder in
    /bin | /boot | /etc | /lib* | /lost+found | /media | /mnt | /sbin | /usr | /var) ;;
    *) [ ! -d "$folder" ] || { mkdir -p "$root$folder"; mount --rbind "$folder" "$root$folder"; } ;;
  esac
done
cd "$root"
pivot_root . .old
export APPTAINER_CONFIGDIR=/var/tmp/user
exec /bin/busybox sh -ec '\''umount -l /.old; cd "$0"; exec apptainer "$@"'\'' "$cwd" "$@"
' sh "$(dirname "$(realpath "$0")")/root" "$@"
END
  chmod 755 "$1/apptainer"
}
