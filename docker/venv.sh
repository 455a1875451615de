# shellcheck shell=sh
# To be sourced: makes the .venv of a checkout, for entrypoint.sh and tests/run. All that it says goes to stderr.

say() { printf '%s: %s\n' "$0" "$1" >&2; }

# fail WHAT_IS_WRONG WHAT_TO_DO
fail() {
  say "$1"
  say "$2"
  exit 78
}

# Prints the first Python that is new enough and can make virtual environments. Each is tried: a name on the PATH may be
# a version manager's that leads nowhere, and Debian ships venv without a part that it needs.
find_python() {
  for imports in 'ensurepip, sys, venv' sys; do
    for python in python3.13 python3.12 python3.11 python3; do
      "$python" -c "import $imports; sys.exit(sys.version_info < (3, 11))" >/dev/null 2>&1 || continue
      [ "$imports" != sys ] || fail "$python cannot make virtual environments" "on Debian: apt-get install python3-venv"
      printf '%s\n' "$python"
      return
    done
  done
  fail "authsync needs Python 3.11 or newer, and none is on the PATH" "install one, or run the Docker image"
}

# is_made CHECKOUT EXTRA: nothing was added since, and the checkout was not moved, which a .venv does not survive.
is_made() {
  [ -x "$1/.venv/bin/python" ] && [ "$(cat "$1/.venv/.place" 2>/dev/null)" = "$1" ] &&
    [ -n "$(find "$1/.venv/.$2-ready" -newer "$1/pyproject.toml" 2>/dev/null)" ]
}

# make_venv CHECKOUT EXTRA: installs the checkout, editable, with the extra, unless that is done already.
make_venv() (
  ! is_made "$1" "$2" || exit 0
  unset PYTHONPATH PYTHONHOME VIRTUAL_ENV
  venv=${1:?}/.venv
  python=$(find_python) || exit
  { mkdir -p "$venv" && touch "$venv/.lock"; } || fail "$1 cannot be written" "run this once as the user who can"
  # A lock belongs to the open file: it is ours until this subshell and all that it runs have ended, killed or not.
  exec 9>>"$venv/.lock"
  "$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)' || fail "$venv/.lock cannot be locked" "see above"
  ! is_made "$1" "$2" || exit 0 # somebody else did it while we waited
  say "making $venv; the first time this takes a while"
  if ! "$venv/bin/python" -c 'import pip' 2>/dev/null || [ "$(cat "$venv/.place" 2>/dev/null)" != "$1" ]; then
    (cd "$venv" && rm -rf bin include lib lib64 pyvenv.cfg .*-ready)
    "$python" -m venv "$venv" || fail "$python could not make $venv (see above)" "mend that and start again"
    printf '%s\n' "$1" >"$venv/.place"
  fi
  "$venv/bin/python" -m pip install -qq --no-input --disable-pip-version-check -e "$1[$2]" ||
    fail "pip could not install authsync (see above)" "check the network and pip's own settings, and start again"
  : >"$venv/.$2-ready"
) >&2
