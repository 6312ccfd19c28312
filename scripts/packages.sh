# Sourced by the scripts: which Debian packages each purpose needs, and how they are installed without starting or
# enabling a service on the machine. Debian 12; where Debian 13 has another name, the one that exists is taken.

PACKAGES_BUILD="clang-19 lld-19 meson ninja-build pkg-config libssl-dev libc-ares-dev libdb5.3-dev
  libtomlplusplus-dev libcli11-dev libfmt-dev nlohmann-json3-dev libre2-dev libidn2-dev libpsl-dev
  libsystemd-dev prometheus-cpp-dev libisal-dev libboost1.81-dev|libboost1.83-dev"
PACKAGES_DEMO="dnsmasq-base python3 python3-aiosmtpd"
PACKAGES_TEST="libclang-rt-19-dev llvm-19 catch2 python3 python3-dnspython mandoc postfix swaks rbldnsd unbound
  postgrey db5.3-util dnsmasq-base python3-aiosmtpd pflogsumm fail2ban openssl libsasl2-modules-db clang-format-19
  iproute2 e2fsprogs haproxy nmap msmtp fetchmail"
PACKAGES_FULL="build-essential prometheus chromium testssl.sh debhelper lintian debootstrap bsdextrautils
  libgnutls-dane0 libidn12 libnsl2 libpcre2-8-0"  # the last four for Exim, which cannot be installed beside Postfix

as_root() {
  if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo "$@"; fi
}

# Prints those of the named packages that are not installed.
missing_packages() {
  local wanted name found
  for wanted in "$@"; do
    found=
    for name in ${wanted//|/ }; do
      dpkg-query -W -f='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed && found=1
    done
    [ -n "$found" ] || echo "$wanted"
  done
}

# Runs a command with Debian's way to say "start nothing": policy-rc.d. An admin's own file is put back, also on Ctrl-C.
without_services() (
  file=/usr/sbin/policy-rc.d mark='# of greymx/scripts/packages.sh' admins=
  if [ -e "$file" ] && ! grep -qF "$mark" "$file"; then
    admins=$(mktemp)
    as_root cp -p "$file" "$admins" || exit
  fi
  restore() {
    if [ -n "$admins" ]; then as_root cp -p "$admins" "$file"; rm -f "$admins"; else as_root rm -f "$file"; fi
  }
  trap restore EXIT
  trap 'exit 130' INT TERM HUP
  printf '#!/bin/sh\n%s\nexit 101\n' "$mark" | as_root tee "$file" >/dev/null || exit
  as_root chmod 755 "$file" || exit
  "$@"
)

install_packages() {
  local missing name alternatives chosen=() status=0
  # shellcheck disable=SC2086
  missing=$(missing_packages $1)
  [ -n "$missing" ] || return 0
  echo "==> installing:" $missing
  export DEBIAN_FRONTEND=noninteractive
  as_root apt-get update -qq
  for alternatives in $missing; do
    for name in ${alternatives//|/ }; do
      if apt-cache show "$name" >/dev/null 2>&1; then chosen+=("$name"); break; fi
    done
  done
  without_services as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends \
    -o Dpkg::Use-Pty=0 "${chosen[@]}" >/tmp/greymx-apt.$$ 2>&1 || status=$?
  if [ "$status" -ne 0 ]; then
    tail -20 /tmp/greymx-apt.$$
    echo "apt-get could not install: ${chosen[*]}" >&2
    return 1
  fi
  rm -f /tmp/greymx-apt.$$
}

# build_in DIRECTORY [meson options]: configures once, then builds what changed. CXX in the environment wins.
build_in() {
  local directory=$1
  shift
  export CC=${CC:-clang-19} CXX=${CXX:-clang++-19}
  if [ ! -f "$directory/build.ninja" ]; then
    meson setup "$directory" "$@" >"$directory.setup.log" 2>&1 || { tail -30 "$directory.setup.log"; return 1; }
    rm -f "$directory.setup.log"
  fi
  ninja -C "$directory"
}
