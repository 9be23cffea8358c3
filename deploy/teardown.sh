#!/usr/bin/env bash
# Removes what deploy.sh made, and nothing else: lists it first, and asks. Safe to run again.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/library.sh"

usage() {
  cat <<'END'
deploy/teardown.sh [--dry-run] [--yes] [--keep-data | --delete-data] [--keep-roles] parameters.env

  --dry-run      print what would be removed, as a script, and remove nothing
  --yes          do not ask for the project's id
  --keep-data    keep buckets with objects, and subscriptions with messages and their topics
  --delete-data  delete these too, and do not ask
  --keep-roles   keep the custom roles, which then allow nobody anything: Google gives the name of a deleted one back for 7 days,
                 when deploy.sh takes it, and then not for 30 more, in which deploy.sh cannot make it again

APIs stay enabled, and what deploy.sh did not make stays as it is.
END
}

YES=no DATA=ask ROLES=delete FILE=''
while [ $# -gt 0 ]; do
  case $1 in
    --dry-run) DRY=yes ;;
    --yes) YES=yes ;;
    --keep-data) DATA=keep ;;
    --delete-data) DATA=delete ;;
    --keep-roles) ROLES=keep ;;
    -h | --help) usage; exit 0 ;;
    -*) usage >&2; stop "$1 is no option" ;;
    *) [ -z "$FILE" ] || stop "one parameters file is needed, not $FILE and $1"; FILE=$1 ;;
  esac
  shift
done
if [ -z "$FILE" ]; then usage >&2; exit 2; fi
find_fanout
read_parameters "$FILE"
OPTIONS="$([ "$DRY" = no ] || echo ' --dry-run')$([ "$YES" = no ] || echo ' --yes')$([ "$ROLES" = delete ] || echo ' --keep-roles')"
case $DATA in ask) ;; *) OPTIONS="$OPTIONS --$DATA-data" ;; esac
STEP=teardown RESUME="$(quoted "$0")$OPTIONS $(quoted "$FILE")"
# A project that cannot be read has nothing that could be found.
gcloud projects describe "$PROJECT" >/dev/null 2>"$WORK/err" </dev/null || failed gcloud projects describe "$PROJECT"

# found LIST TEST: the names of the items of a list for which TEST, in Python about `one`, is true.
found() {
  py -c 'import json, sys
def label(one):
    places = one.get("labels"), one.get("userLabels"), (one.get("metadata") or {}).get("labels")
    return next((place["fanout"] for place in places if place and "fanout" in place), None)
for one in json.load(open(sys.argv[1])):
    if eval("(" + sys.argv[2] + ")"): print(one.get("name") or one["metadata"]["name"])' "$WORK/$1" "$2" ||
    stop "step $STEP: what gcloud says of $1 is not understood"
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
  look services.json gcloud run services list "--project=$PROJECT"
  found services.json 'label(one) in ("controller", "intake") and
    one["metadata"]["labels"].get("cloud.googleapis.com/location") == "'"$REGION"'"' | listed service
  look jobs.json gcloud run jobs list "--region=$REGION" "--project=$PROJECT"
  # The job that drains dead letters has no label: its command tells it from another of this name.
  found jobs.json '"fanout-lane" in (one["metadata"].get("labels") or {}) or one["metadata"]["name"] == "dead-letters" and
    "\"-m\", \"batch\", \"dead-letters\"" in json.dumps(one)' | listed job
  look repositories.json gcloud artifacts repositories list "--location=$REGION" "--project=$PROJECT"
  found repositories.json 'label(one) == "images"' | listed repository
  look buckets.json gcloud storage buckets list --raw "--project=$PROJECT"
  found buckets.json 'label(one) == "bucket" and one["name"] in ("'"$BUCKET"'", "'"$BUCKET-build"'")' | listed bucket
  found buckets.json 'label(one) == "bucket" and one["name"] not in ("'"$BUCKET"'", "'"$BUCKET-build"'")' >"$WORK/others"
  while read -r line; do say "bucket $line is not of these parameters, and stays"; done <"$WORK/others"
  found services.json 'label(one) == "controller" and
    one["metadata"]["labels"].get("cloud.googleapis.com/location") != "'"$REGION"'"' >"$WORK/others"
  if [ -s "$WORK/others" ]; then
    say "another region of this project has a controller, too: topics, subscriptions, accounts, roles and monitoring serve it, and stay"
    return 0
  fi
  survey_project
}

# What all regions of the project share.
survey_project() {
  look policies.json gcloud alpha monitoring policies list "--project=$PROJECT"
  for file in "$DEPLOY"/monitoring/alerts/*.json; do
    found policies.json 'label(one) == "'"$(basename "$file" .json)"'"' | listed alert
  done
  look dashboards.json gcloud monitoring dashboards list "--project=$PROJECT"
  found dashboards.json 'label(one) is not None and one.get("displayName") == "Fanout"' | listed dashboard
  look channels.json gcloud beta monitoring channels list "--project=$PROJECT"
  found channels.json 'label(one) == "alerts"' | listed channel
  look metrics.json gcloud logging metrics list "--project=$PROJECT"
  for file in "$DEPLOY"/monitoring/metrics/*.yaml; do
    ! has metrics.json name "$(basename "$file" .yaml)" || echo "metric $(basename "$file" .yaml)" >>"$WORK/all"
  done
  look subscriptions.json gcloud pubsub subscriptions list "--project=$PROJECT"
  found subscriptions.json 'label(one) == "lane"' | listed subscription
  look topics.json gcloud pubsub topics list "--project=$PROJECT"
  found topics.json 'label(one) == "lane"' | listed topic
  look roles.json gcloud iam roles list "--project=$PROJECT"
  for file in "$DEPLOY"/identity/roles/*.yaml; do
    [ $ROLES = keep ] || ! has roles.json name "$(basename "$file" .yaml)" || echo "role $(basename "$file" .yaml)" >>"$WORK/all"
  done
  look accounts.json gcloud iam service-accounts list "--project=$PROJECT"
  # Also those of lanes that are none any more, and of the other way to give workers accounts.
  for name in $(accounts) fanout-worker; do
    found accounts.json 'one["email"].split("@")[0] == "'"$name"'" and one.get("displayName") == "Fanout"' | listed account
  done
  found accounts.json 'one["email"].startswith("fanout-worker-") and one.get("displayName") == "Fanout"' | listed account
  sed 's/^\(account [^@]*\)@.*/\1/' "$WORK/all" | awk '!seen[$0]++' >"$WORK/rest"
  mv "$WORK/rest" "$WORK/all"
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

# Messages that workers hold are not seen by who looks: while any works nothing can be said to be empty.
refuse_while_working() {
  local name
  [ "$DATA" != delete ] && [ "$DRY" = no ] && grep -q '^job ' "$WORK/all" || return 0
  look executions.json gcloud run jobs executions list "--region=$REGION" "--project=$PROJECT"
  name=$(found executions.json 'not (one.get("status") or {}).get("completionTime")' | sed -n 1p)
  [ -z "$name" ] ||
    stop "execution $name runs, and holds messages: fanout pause every lane, wait until \`fanout executions\` shows none, or say --delete-data"
}

# Data is a question of its own. A dry run asks nothing and takes no message: what may hold data is kept there.
ask_for_data() {
  local kind name answer
  grep -E '^(bucket|subscription) ' "$WORK/all" >"$WORK/data" || true
  while read -r kind name <&5; do
    if [ "$DATA" = delete ] || [ "$name" = "$BUCKET-build" ]; then continue; fi
    if [ "$DRY" = no ] && ! full "$kind" "$name"; then continue; fi
    answer=$DATA
    [ "$DRY" = no ] || answer=keep
    if [ "$answer" = ask ] && [ "$YES" = yes ]; then stop "$kind $name is not empty: say --keep-data or --delete-data"; fi
    if [ "$answer" = ask ]; then
      printf '%s %s is not empty. Type its name to delete what is in it, anything else to keep it: ' "$kind" "$name"
      read -r answer || answer=''
      [ "$answer" != "$name" ] || answer=delete
    fi
    if [ "$answer" != delete ]; then
      keep "$kind $name"
      [ "$kind" = bucket ] || keep "topic $(py -c 'import json, sys
print(next(one["topic"] for one in json.load(open(sys.argv[1])) if one["name"].endswith("/" + sys.argv[2])).split("/")[-1])' \
        "$WORK/subscriptions.json" "$name")"
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
  local kind thing role member
  grep -q '^account ' "$WORK/all" || return 0
  know_number
  { wanted_bindings project bucket repository topic subscription
    wanted_secret
    while read -r kind thing; do case $kind in topic | subscription) echo "$kind $thing" ;; esac; done <"$WORK/kept"
  } | cut -d' ' -f1,2 | sort -u >"$WORK/things"
  while read -r kind thing <&3; do
    if grep -qxF "$kind $thing" "$WORK/all"; then continue; fi
    policy get "$kind" "$thing"
    look policy.json "${COMMAND[@]}"
    bound nobody nobody || true
    while read -r role member <&4; do
      if ! goes "$kind $thing" "$member"; then continue; fi
      policy remove "$kind" "$thing"
      change "${COMMAND[@]}" "--member=$member" "--role=$role" --quiet
    done 4<"$WORK/policy.json.lines"
  done 3<"$WORK/things"
}

# goes THING MEMBER: whether the member is an account that goes, or Pub/Sub's own where no message waits that needs it.
goes() {
  case $2 in
    serviceAccount:service-*@gcp-sa-pubsub.*) ! grep -qxF "$1" "$WORK/kept" && case $1 in topic* | subscription*) ;; *) false ;; esac ;;
    serviceAccount:*"@$PROJECT."*) local name=${2#serviceAccount:}; grep -qxF "account ${name%%@*}" "$WORK/all" ;;
    *) false ;;
  esac
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
refuse_while_working
ask_for_data
[ "$DRY" = no ] || [ "$DATA" = delete ] || say 'a real run looks whether these are empty, and asks before it deletes them where they are not'
revoke
while read -r kind name <&5; do remove "$kind" "$name"; done 5<"$WORK/all"
[ "$DRY" = yes ] || rm -rf "${TMPDIR:-/tmp}/fanout-$PROJECT"
say "done. APIs stay enabled.$([ ! -s "$WORK/kept" ] || echo ' What was kept is listed above.')"
