#!/usr/bin/env bash
# Removes what deploy.sh made, and nothing else: lists it first, and asks. Safe to run again.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/library.sh"

usage() {
  cat <<'END'
deploy/teardown.sh [--dry-run] [--yes] [--keep-data | --delete-data] parameters.env

  --dry-run      print what would be removed, as a script, and remove nothing
  --yes          do not ask for the project's id
  --keep-data    keep buckets with objects, and subscriptions with messages and their topics
  --delete-data  delete these too, and do not ask

APIs stay enabled, and what deploy.sh did not make stays as it is.
END
}

YES=no DATA=ask FILE=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) DRY=yes ;;
    --yes) YES=yes ;;
    --keep-data) DATA=keep ;;
    --delete-data) DATA=delete ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; stop "$1 is no option" ;;
    *) [ -z "$FILE" ] || stop "one parameters file is needed, not $FILE and $1"; FILE=$1 ;;
  esac
  shift
done
if [ -z "$FILE" ]; then usage >&2; exit 2; fi
find_fanout
read_parameters "$FILE"
STEP=teardown RESUME="$(quoted "$0") $(quoted "$FILE")"

# found LIST TEST: the names of the items of a list for which TEST, in Python about `one`, is true.
found() {
  "$PYTHON" -c 'import json, sys
def labels(one, key="labels"): return (one.get(key) or (one.get("metadata") or {}).get(key) or {})
for one in json.load(open(sys.argv[1])):
    if eval("(" + sys.argv[2] + ")"): print(one.get("name") or one["metadata"]["name"])' "$WORK/$1" "$2"
}

listed() {
  local line
  while read -r line; do [ -z "$line" ] || printf '%s %s\n' "$1" "${line##*/}" >>"$WORK/all"; done
}

survey() {
  : >"$WORK/all"
  look schedule.json gcloud scheduler jobs list "--location=$REGION" "--project=$PROJECT"
  found schedule.json 'one["name"].split("/")[-1] in ("fanout-tick", "fanout-dead-letters") and
    "/fanout-scheduler@" in "/" + json.dumps(one.get("httpTarget", {})).replace("\"", "/")' | listed schedule
  look services.json gcloud run services list "--region=$REGION" "--project=$PROJECT"
  found services.json '"fanout" in labels(one)' | listed service
  look jobs.json gcloud run jobs list "--region=$REGION" "--project=$PROJECT"
  # The job that drains dead letters has no label: its command tells it from another of this name.
  found jobs.json '"fanout-lane" in labels(one) or one["metadata"]["name"] == "dead-letters" and
    "\"-m\", \"batch\", \"dead-letters\"" in json.dumps(one)' | listed job
  look policies.json gcloud alpha monitoring policies list "--project=$PROJECT"
  found policies.json '"fanout" in labels(one, "userLabels")' | listed alert
  look dashboards.json gcloud monitoring dashboards list "--project=$PROJECT"
  found dashboards.json '"fanout" in labels(one)' | listed dashboard
  look channels.json gcloud beta monitoring channels list "--project=$PROJECT"
  found channels.json '"fanout" in labels(one, "userLabels")' | listed channel
  look metrics.json gcloud logging metrics list "--project=$PROJECT"
  for file in "$DEPLOY"/monitoring/metrics/*.yaml; do
    ! has metrics.json name "$(basename "$file" .yaml)" || echo "metric $(basename "$file" .yaml)" >>"$WORK/all"
  done
  look subscriptions.json gcloud pubsub subscriptions list "--project=$PROJECT"
  found subscriptions.json '"fanout" in labels(one)' | listed subscription
  look topics.json gcloud pubsub topics list "--project=$PROJECT"
  found topics.json '"fanout" in labels(one)' | listed topic
  look buckets.json gcloud storage buckets list --raw "--project=$PROJECT"
  found buckets.json 'labels(one).get("fanout") == "bucket"' | listed bucket
  look repositories.json gcloud artifacts repositories list "--location=$REGION" "--project=$PROJECT"
  found repositories.json '"fanout" in labels(one)' | listed repository
  look roles.json gcloud iam roles list "--project=$PROJECT"
  for file in "$DEPLOY"/identity/roles/*.yaml; do
    [ ! -f "$file" ] || ! has roles.json name "$(basename "$file" .yaml)" || echo "role $(basename "$file" .yaml)" >>"$WORK/all"
  done
  look accounts.json gcloud iam service-accounts list "--project=$PROJECT"
  for name in $(accounts); do
    ! has accounts.json email "$(account "$name")" || echo "account $name" >>"$WORK/all"
  done
}

# Whether a bucket holds objects, or a subscription a message, which goes back at once. What cannot be told is no emptiness.
full() {
  local line
  if [ "$1" = bucket ]; then holds "$2"; return; fi
  COMMAND=(gcloud pubsub subscriptions pull "$2" --limit=1 "--project=$PROJECT" '--format=value(ackId)')
  line=$("${COMMAND[@]}" </dev/null 2>"$WORK/err") || failed "${COMMAND[@]}"
  [ -n "$line" ] || return 1
  gcloud pubsub subscriptions modify-message-ack-deadline "$2" "--ack-ids=$line" --ack-deadline=0 "--project=$PROJECT" \
    >/dev/null 2>&1 </dev/null || true
}

keep() {
  if ! grep -qxF "$1" "$WORK/all"; then return 0; fi
  grep -vxF "$1" "$WORK/all" >"$WORK/rest" || true
  mv "$WORK/rest" "$WORK/all"
  echo "$1" >>"$WORK/kept"
  say "kept: $1"
}

# Data is a question of its own.
ask_for_data() {
  local kind name answer
  grep -E '^(bucket|subscription) ' "$WORK/all" >"$WORK/data" || true
  while read -r kind name <&5; do
    if [ "$DATA" = delete ] || [ "$name" = "$BUCKET-build" ] || ! full "$kind" "$name"; then continue; fi
    answer=$DATA
    if [ "$DATA" = ask ] && [ "$YES" = yes ]; then stop "$kind $name is not empty: say --keep-data or --delete-data"; fi
    if [ "$DATA" = ask ]; then
      printf '%s %s is not empty. Type its name to delete what is in it, anything else to keep it: ' "$kind" "$name"
      read -r answer || answer=''
      [ "$answer" != "$name" ] || answer=delete
    fi
    if [ "$answer" != delete ]; then
      keep "$kind $name"
      [ "$kind" = bucket ] || while read -r _ _ topic source; do [ "$source" != "$name" ] || keep "topic $topic"; done <"$WORK/lanes"
      # What a kept subscription cannot deliver still goes to the dead letters.
      [ "$kind" = bucket ] || { keep 'topic dead-letters'; keep 'subscription dead-letters'; }
    fi
  done 5<"$WORK/data"
}

remove() {
  local at=("--project=$PROJECT" --quiet) id
  case $1 in
    schedule) change gcloud scheduler jobs delete "$2" "--location=$REGION" "${at[@]}" ;;
    service) change gcloud run services delete "$2" "--region=$REGION" "${at[@]}" ;;
    job) change gcloud run jobs delete "$2" "--region=$REGION" "${at[@]}" ;;
    alert) change gcloud alpha monitoring policies delete "projects/$PROJECT/alertPolicies/$2" "${at[@]}" ;;
    dashboard) change gcloud monitoring dashboards delete "$2" "${at[@]}" ;;
    channel) change gcloud beta monitoring channels delete "projects/$PROJECT/notificationChannels/$2" "${at[@]}" ;;
    metric) change gcloud logging metrics delete "$2" "${at[@]}" ;;
    subscription) change gcloud pubsub subscriptions delete "$2" "${at[@]}" ;;
    topic) change gcloud pubsub topics delete "$2" "${at[@]}" ;;
    bucket) change gcloud storage rm --recursive "gs://$2" "${at[@]}" ;;
    repository) change gcloud artifacts repositories delete "$2" "--location=$REGION" "${at[@]}" ;;
    role) change gcloud iam roles delete "$2" "${at[@]}" ;;
    account) change gcloud iam service-accounts delete "$(account "$2")" "${at[@]}" ;;
  esac
}

# What stays must not name accounts that are gone.
revoke() {
  local kind thing role member last=''
  know_number
  wanted_bindings project bucket topic subscription account job service >"$WORK/wanted"
  wanted_secret >>"$WORK/wanted"
  while read -r kind thing role member <&3; do
    if grep -qxF "$kind $thing" "$WORK/all"; then continue; fi
    if [ "$kind $thing" != "$last" ]; then
      last="$kind $thing"
      policy get "$kind" "$thing"
      look policy.json "${COMMAND[@]}"
    fi
    if ! bound "$role" "$member"; then continue; fi
    case $member in *@gcp-sa-pubsub.*) if grep -qxF "$kind $thing" "$WORK/kept"; then continue; fi ;; esac
    policy remove "$kind" "$thing"
    change "${COMMAND[@]}" "--member=$member" "--role=$role" --quiet
  done 3<"$WORK/wanted"
}

: >"$WORK/kept"
survey
if [ ! -s "$WORK/all" ]; then say "nothing of deploy.sh is left in project $PROJECT"; exit 0; fi
say "in project $PROJECT there is:"
while read -r line; do say "  $line"; done <"$WORK/all"
if [ "$DRY" = no ] && [ "$YES" = no ]; then
  printf "Type the project's id to remove these: "
  read -r answer || answer=''
  [ "$answer" = "$PROJECT" ] || stop 'nothing was removed'
fi
if [ "$DRY" = no ]; then
  ask_for_data
else
  say 'a real run asks before buckets with objects and subscriptions with messages, or keeps them (--keep-data)'
fi
revoke
while read -r kind name <&5; do remove "$kind" "$name"; done 5<"$WORK/all"
rm -rf "${TMPDIR:-/tmp}/fanout-$PROJECT"
say "done. APIs stay enabled.$([ ! -s "$WORK/kept" ] || echo ' What was kept is listed above.')"
