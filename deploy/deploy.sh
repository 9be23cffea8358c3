#!/usr/bin/env bash
# Deploys Fanout into a project, step by step. Safe to run again: what is as it should be stays as it is.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/library.sh"

usage() {
  cat <<'END'
deploy/deploy.sh [--dry-run] [--from STEP | --only STEP] parameters.env
deploy/deploy.sh --list | --help

  --dry-run    print every command that would change something, as a script, and run none of them
  --from STEP  begin with this step; a failure prints the line to go on with
  --only STEP  this step alone
  --list       the steps in their order

parameters.env is a copy of deploy/parameters.example.env, which says what each parameter is for.
END
}

steps() { for file in "$DEPLOY"/steps/*.sh; do basename "$file" .sh | sed 's/^[0-9]*-//'; done; }

FROM='' ONLY='' FILE=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) DRY=yes ;;
    --from | --only)
      [ $# -gt 1 ] || stop "$1 needs a step: $(steps | tr '\n' ' ')"
      [ -n "$(steps | grep -xF -- "$2")" ] || stop "$2 is no step; these are: $(steps | tr '\n' ' ')"
      if [ "$1" = --from ]; then FROM=$2; else ONLY=$2; fi
      shift ;;
    --list) steps; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; stop "$1 is no option" ;;
    *) [ -z "$FILE" ] || stop "one parameters file is needed, not $FILE and $1"; FILE=$1 ;;
  esac
  shift
done
[ -z "$FROM" ] || [ -z "$ONLY" ] || stop '--from and --only do not go together'
if [ -z "$FILE" ]; then usage >&2; exit 2; fi
find_fanout
read_parameters "$FILE"
py -c 'import sys, yaml
names = [(one.get("metadata") or {}).get("name") for one in yaml.safe_load_all(open(sys.argv[1], encoding="utf-8")) if isinstance(one, dict)]
sys.exit("dead-letters" not in names)' "$JOBS_FILE" ||
  stop "$JOBS_FILE has no job dead-letters, which drains the dead-letter topic: take it over from jobs.yaml"
if [ -n "$API_KEYS_SECRET" ] && ! has_rules; then
  stop "$FILE: API_KEYS_SECRET is set, and nothing says what its keys allow: the front door would not start." \
    "Add ACCESS to deploy/services/fanout-intake.yaml; docs/services.md shows the line"
fi

for file in "$DEPLOY"/steps/*.sh; do
  STEP=$(basename "$file" .sh | sed 's/^[0-9]*-//')
  if [ "$STEP" = "$FROM" ]; then FROM=''; fi
  if [ -n "$FROM" ] || { [ -n "$ONLY" ] && [ "$ONLY" != "$STEP" ]; }; then continue; fi
  RESUME="$(quoted "$0")$([ "$DRY" = no ] || echo ' --dry-run') --$([ -n "$ONLY" ] && echo only || echo from) $STEP $(quoted "$FILE")"
  say "== $STEP"
  . "$file"
done
if [ "$DRY" = yes ]; then
  say "$CHANGES commands; nothing was changed"
elif [ $CHANGES = 0 ]; then
  say 'no change'
else
  say "done: $CHANGES changes. Next: fanout doctor --project=$PROJECT --region=$REGION --bucket=$BUCKET"
fi
if [ $WARNINGS -gt 0 ]; then say "$WARNINGS warnings, see above"; fi
