#!/bin/sh
# entrypoint.sh COMMAND [ARGUMENT...]: runs COMMAND, a bot, under authsync: authsync run -- COMMAND...
#
# It passes through, and so never takes a session, when the first word is a command or an option of authsync
# (entrypoint.sh status, entrypoint.sh --help) or a shell (docker run -it IMAGE sh).
#
# It takes the authsync on the PATH. Where there is none it takes the .venv of the checkout that this file lies in, which
# it makes first if need be, with a PostgreSQL for DATABASE_URL=embedded: in it.
set -eu

case ${1-} in
  sh | bash | ash | dash | zsh | */sh | */bash | */ash | */dash | */zsh)
    if [ "${2-}" = -c ]; then # also what Docker makes of a CMD in shell form
      printf 'entrypoint.sh: %s -c runs without authsync; in a Dockerfile write CMD ["node", "server.js"]\n' "$1" >&2
    fi
    exec "$@"
    ;;
esac

if ! authsync=$(command -v authsync); then
  here=$(dirname -- "$(readlink -f -- "$0")")
  if [ ! -f "$here/docker/venv.sh" ]; then
    printf 'entrypoint.sh: authsync is not on the PATH, and %s is not a checkout of it\n' "$here" >&2
    printf 'entrypoint.sh: pip install authsync\n' >&2
    exit 78
  fi
  # shellcheck source=docker/venv.sh
  . "$here/docker/venv.sh"
  make_venv "$here" embedded || exit
  authsync=$here/.venv/bin/authsync
fi

if [ $# -eq 0 ]; then
  "$authsync" --help >&2
  exit 64
fi
case $1 in
  run | watch | restore | rollback | backup | status | snapshots | diff | verify | delete | doctor | health | init) ;;
  export | import | key | --?* | -[!-]*) ;;
  authsync) shift ;;
  --) set -- run "$@" ;;
  *) set -- run -- "$@" ;;
esac
exec "$authsync" "$@"
