# What deploy.sh and teardown.sh share. Runs with bash 3.2, the one of macOS.
# shellcheck shell=bash disable=SC2034  # variables are those of the scripts that read this file

# Nothing of the caller's own decides what is done here.
unset CDPATH
TOPICS='' AGENT_MADE='' RESUME='' ABSENT=''
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
DEPLOY=$ROOT/deploy
DRY=no STEP='' CHANGES=0 WARNINGS=0 NUMBER='' CONTROLLER_URL='' CHANNEL=''
WORK=$(mktemp -d "${TMPDIR:-/tmp}/fanout.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
trap 'stop "" "stopped${STEP:+ in step $STEP}.${RESUME:+ Go on with: $RESUME}"' INT TERM

# Python code, without the folder that one stands in on its path.
py() { "$PYTHON" -I "$@"; }

# A dry run prints a script: what is not a command is a comment there.
say() { if [ "$DRY" = yes ]; then printf '# %s\n' "$*"; else printf '%s\n' "$*"; fi; }
warn() { WARNINGS=$((WARNINGS + 1)); printf 'warning: %s\n' "$*" >&2; }
stop() { printf '%s\n' "$@" >&2; exit 1; }

# The words of a command as a shell reads them. In a dry run $NUMBER and its like stand for what is not known yet.
quoted() {
  local word line=''
  for word in "$@"; do
    case $word in
      *'$NUMBER'* | *'$IMAGE'* | *'$CONTROLLER_URL'* | *'$CHANNEL'*) word="\"$word\"" ;;
      *[!A-Za-z0-9_./:=@,%+-]* | '') word="'$(printf %s "$word" | sed "s/'/'\\\\''/g")'" ;;
    esac
    line="$line${line:+ }$word"
  done
  printf '%s\n' "$line"
}

failed() {
  stop '' "step $STEP failed at: $(quoted "$@")" "$(sed 's/^/  /' "$WORK/err")" '' "Mend it, then go on with: $RESUME"
}

# What was made or allowed a moment ago is not known everywhere at once: accounts, rights, enabled APIs, metrics. Where gcloud's message is of
# this kind, `again TRY` waits: a minute in all, or ten for metrics, of which the message says so itself.
SOON='service account .* does not exist|concurrent policy changes|permission denied on secret|could not resolve source'
SOON="$SOON|has not been used in project|SERVICE_DISABLED|does not exist in the resource|up to 10 minutes|few minutes to propagate"
again() {
  local most=5 pause=$(($1 * ${FANOUT_RETRY_S:-4}))
  grep -qiE "$SOON" "$WORK/err" || return 1
  if grep -qE 'up to 10 minutes|few minutes to propagate' "$WORK/err"; then most=25; fi
  [ "$1" -le $most ] || return 1
  [ "$1" -gt 1 ] || say "waiting, since gcloud says: $(head -n 1 "$WORK/err")"
  sleep $((pause < 30 ? pause : 30))
}

# A command that changes something.
change() {
  local try=1
  CHANGES=$((CHANGES + 1))
  quoted "$@"
  [ "$DRY" = no ] || return 0
  while ! "$@" >"$WORK/out" 2>"$WORK/err" </dev/null; do
    again $try || failed "$@"
    try=$((try + 1))
  done
}

# How gcloud says that something, or its API, is not there. All else is a failure: a right that lacks, an account that is not paid.
GONE='NOT_FOUND|not found: 404|HTTPError 404|Cannot find (service|job)|has not been used in project|SERVICE_DISABLED'

# What a step before has not made, in a dry run or a teardown, has nothing; nor has an image of which none was built.
may_lack() { [ "$DRY" = yes ] || [ "$STEP" = teardown ] || [ "$ABSENT" = empty ]; }

# look FILE COMMAND…: what is there, as JSON. Where a dry run cannot look, nothing is.
look() {
  local file=$WORK/$1 try=1
  rm -f "$file".*
  shift
  if [ "$DRY" = yes ] && [ "$REACHED" = no ]; then echo '[]' >"$file"; return 0; fi
  while ! "$@" --format=json >"$file" 2>"$WORK/err" </dev/null; do
    if may_lack && grep -qE "$GONE" "$WORK/err"; then
      echo '[]' >"$file"
      return 0
    fi
    again $try || failed "$@"
    try=$((try + 1))
  done
}

files() { py "$DEPLOY/files.py" "$@"; }

# compare WHAT WANTED LIST KEY: sets STATE to missing, same or differs, FOUND to its name, WHY to what differs.
compare() {
  local line
  line=$(files compare "$2" "$WORK/$3" "$4")
  STATE=${line%% *} WHY=''
  line=${line#"$STATE"}
  line=${line# }
  FOUND=${line%%: *}
  [ "$STATE" != same ] || say "$1: as it is"
  if [ "$STATE" = differs ]; then WHY=${line#*: }; say "$1: $WHY"; fi
}

# has FILE KEY VALUE: whether an item of a list has this value. A list of names may have them as paths.
has() {
  local values=$WORK/$1.$2
  [ -f "$values" ] || py -c 'import json, sys
for one in json.load(open(sys.argv[1])): print(str(one.get(sys.argv[2])).split("/")[-1])' "$WORK/$1" "$2" >"$values" ||
    stop "step $STEP: what gcloud says of $1 is not understood"
  grep -qxF -- "$3" "$values"
}

know_number() {
  [ -z "$NUMBER" ] || return 0
  if [ "$DRY" = yes ] && [ "$REACHED" = no ]; then
    printf 'NUMBER=$(%s)\n' "$(quoted gcloud projects describe "$PROJECT" "--format=value(projectNumber)")"
    NUMBER='$NUMBER'
    return 0
  fi
  look project.json gcloud projects describe "$PROJECT"
  NUMBER=$(sed -n 's/.*"projectNumber": *"\([0-9]*\)".*/\1/p' "$WORK/project.json")
}

# A Cloud Run service's address follows from its name, the project's number and the region.
know_controller() {
  know_number
  CONTROLLER_URL=https://fanout-controller-$NUMBER.$REGION.run.app
}

account() { printf '%s@%s.iam.gserviceaccount.com\n' "$1" "$PROJECT"; }

# The columns account, role, on of the table, with the header left out; reasons may hold commas and stand last.
bindings() { sed 1d "$DEPLOY/identity/bindings.csv" | cut -d, -f1-3; }

# Service accounts, one a line: those of the table, a worker's for each lane if wanted, and Scheduler's.
accounts() {
  local name
  for name in $(bindings | cut -d, -f1 | sort -u); do
    case $name in
      pubsub-agent) ;;
      worker) if [ "$WORKER_ACCOUNTS" = lane ]; then lanes | sed 's/^\([^ ]*\) .*/fanout-worker-\1/'; else echo fanout-worker; fi ;;
      *) echo "fanout-$name" ;;
    esac
  done
}

lanes() { cat "$WORK/lanes"; }

# member ACCOUNT: the members that the name of the table stands for, each with the lane that it is limited to, or -.
members() {
  local job rest
  case $1 in
    pubsub-agent) echo "serviceAccount:service-$NUMBER@gcp-sa-pubsub.iam.gserviceaccount.com -" ;;
    worker)
      if [ "$WORKER_ACCOUNTS" = one ]; then echo "serviceAccount:$(account fanout-worker) -"; return 0; fi
      lanes | while read -r job rest; do echo "serviceAccount:$(account "fanout-worker-$job") $job"; done ;;
    *) echo "serviceAccount:$(account "fanout-$1") -" ;;
  esac
}

# things ON: `KIND NAME JOB` of each resource that the table's word stands for; JOB is the lane's, or -.
things() {
  local job lane topic subscription
  case $1 in
    project) echo "project $PROJECT -" ;;
    bucket) echo "bucket $BUCKET -" ;;
    build-bucket) [ "$BUILDS" = no ] || echo "bucket $BUCKET-build -" ;;
    repository) echo "repository fanout -" ;;
    topics) lanes | while read -r job lane topic subscription; do echo "topic $topic $job"; done ;;
    subscriptions) lanes | while read -r job lane topic subscription; do echo "subscription $subscription $job"; done ;;
    dead-letter-topic) echo "topic dead-letters -" ;;
    dead-letter-subscription) echo "subscription dead-letters -" ;;
    account:fanout-worker) accounts | sed -n 's/^fanout-worker.*/account & -/p' ;;
    *:*) echo "${1%%:*} ${1#*:} -" ;;
    *) stop "deploy/identity/bindings.csv: column on: $1 is not known" ;;
  esac
}

# policy VERB KIND NAME: sets COMMAND to gcloud's words for the policy of one resource.
policy() {
  local verb=$1-iam-policy-binding
  [ "$1" != get ] || verb=get-iam-policy
  case $2 in
    project) COMMAND=(gcloud projects "$verb" "$3") ;;
    bucket) COMMAND=(gcloud storage buckets "$verb" "gs://$3") ;;
    repository) COMMAND=(gcloud artifacts repositories "$verb" "$3" "--location=$REGION" "--project=$PROJECT") ;;
    topic) COMMAND=(gcloud pubsub topics "$verb" "$3" "--project=$PROJECT") ;;
    subscription) COMMAND=(gcloud pubsub subscriptions "$verb" "$3" "--project=$PROJECT") ;;
    service) COMMAND=(gcloud run services "$verb" "$3" "--region=$REGION" "--project=$PROJECT") ;;
    job) COMMAND=(gcloud run jobs "$verb" "$3" "--region=$REGION" "--project=$PROJECT") ;;
    account) COMMAND=(gcloud iam service-accounts "$verb" "$(account "$3")" "--project=$PROJECT") ;;
    secret) COMMAND=(gcloud secrets "$verb" "$3" "--project=$PROJECT") ;;
    *) stop "deploy/identity/bindings.csv: column on: $2:$3 is not known" ;;
  esac
  # A policy in which somebody set conditions makes gcloud ask; the commands of these kinds take no answer to that.
  case $1-$2 in get-* | *-topic | *-subscription | *-job) ;; *) COMMAND=("${COMMAND[@]}" --condition=None) ;; esac
}

role_name() { case $1 in custom:*) echo "projects/$PROJECT/roles/${1#custom:}" ;; *) echo "$1" ;; esac; }

# wanted_bindings KIND…: `KIND NAME ROLE MEMBER` of all that the table wants on resources of these kinds, sorted by resource.
wanted_bindings() {
  local name role on kind thing job member lane kinds=" $* "
  bindings | while IFS=, read -r name role on; do
    things "$on" | while read -r kind thing job; do
      case $kinds in *" $kind "*) ;; *) continue ;; esac
      members "$name" | while read -r member lane; do
        if [ "$lane" != - ] && [ "$job" != - ] && [ "$lane" != "$job" ]; then continue; fi
        echo "$kind $thing $(role_name "$role") $member"
      done
    done
  done | sort -u
}

# The same of the front door's keys, which the table does not know by name.
wanted_secret() {
  [ -z "$API_KEYS_SECRET" ] ||
    echo "secret $API_KEYS_SECRET roles/secretmanager.secretAccessor serviceAccount:$(account fanout-intake)"
}

# grant KIND…: adds the bindings that are missing. What others have granted stays.
grant() {
  know_number
  wanted_bindings "$@" >"$WORK/wanted"
  grant_listed
}

# The same for the lines of $WORK/wanted.
grant_listed() {
  local kind thing role member last='' count=0
  while read -r kind thing role member <&3; do
    if [ "$kind $thing" != "$last" ]; then
      last="$kind $thing"
      policy get "$kind" "$thing"
      look policy.json "${COMMAND[@]}"
    fi
    if bound "$role" "$member"; then continue; fi
    count=$((count + 1))
    case $member in *@gcp-sa-pubsub.*) make_agent ;; esac
    policy add "$kind" "$thing"
    change "${COMMAND[@]}" "--member=$member" "--role=$role"
  done 3<"$WORK/wanted"
  [ $count -gt 0 ] || say 'who may do what: as it is'
}

# Pub/Sub's own account, which moves dead letters, may not exist before it is asked for.
make_agent() {
  [ -z "${AGENT_MADE:-}" ] || return 0
  AGENT_MADE=yes
  change gcloud beta services identity create --service=pubsub.googleapis.com "--project=$PROJECT"
}

# holds BUCKET: whether there are objects in it.
holds() {
  COMMAND=(gcloud storage ls "gs://$1")
  "${COMMAND[@]}" >"$WORK/objects" 2>"$WORK/err" </dev/null || failed "${COMMAND[@]}"
  [ -s "$WORK/objects" ]
}

# Whether $WORK/policy.json gives the role to the member, without a condition.
bound() {
  local lines=$WORK/policy.json.lines
  [ -f "$lines" ] || py -c 'import json, sys
policy = json.load(open(sys.argv[1])) or {}
for one in policy.get("bindings", []) if isinstance(policy, dict) else []:
    if not one.get("condition"): print("\n".join(one["role"] + " " + member for member in one["members"]))' "$WORK/policy.json" >"$lines" ||
    stop "step $STEP: what gcloud says of a policy is not understood"
  grep -qxF -- "$1 $2" "$lines"
}

# One of the commands below a checkout, or on PATH, and a Python that has what files.py needs.
find_fanout() {
  FANOUT=fanout
  [ ! -x "$ROOT/.venv/bin/fanout" ] || FANOUT=$ROOT/.venv/bin/fanout
  command -v "$FANOUT" >/dev/null || stop "\`fanout\` is not installed: make demo, or pip install '.[cli]' in a checkout"
  command -v gcloud >/dev/null || stop '`gcloud` is not installed: https://cloud.google.com/sdk/docs/install'
  for PYTHON in "$(dirname "$(command -v "$FANOUT")")/python3" python3 ''; do
    if [ -n "$PYTHON" ] && py -c 'import yaml' 2>/dev/null; then break; fi
  done
  [ -n "$PYTHON" ] || stop 'no python3 with PyYAML was found: run this in the environment that has fanout'
}

# Whether the front door is told who may do what.
has_rules() { grep -qE '^[^#]*name: ACCESS[^A-Z_]' "$DEPLOY/services/fanout-intake.yaml"; }

# Sets one variable for each parameter. The file is never executed.
read_parameters() {
  local name value
  py "$DEPLOY/parameters.py" "$1" >"$WORK/parameters" || exit 2
  while IFS='=' read -r name value; do printf -v "$name" %s "$value"; done <"$WORK/parameters"
  # Beside the parameters file, or in the checkout.
  case $JOBS_FILE in
    /*) ;;
    *) if [ -f "$(dirname "$1")/$JOBS_FILE" ]; then JOBS_FILE=$(cd "$(dirname "$1")" && pwd)/$JOBS_FILE; else JOBS_FILE=$ROOT/$JOBS_FILE; fi ;;
  esac
  "$FANOUT" render --lanes "$JOBS_FILE" >"$WORK/lanes" || exit 2
  if [ "$WORKER_ACCOUNTS" = lane ]; then
    while read -r name _; do
      [ ${#name} -le 16 ] || stop "WORKER_ACCOUNTS=lane: fanout-worker-$name is longer than the 30 letters of a service account's id;" \
        "a lane's job may have 16 then: give it a shorter name, or set WORKER_ACCOUNTS=one"
    done <"$WORK/lanes"
  fi
  BUILDS=$([ -z "$IMAGE" ] && echo yes || echo no)
  export CLOUDSDK_CORE_DISABLE_PROMPTS=1
  REACHED=yes
  if [ "$DRY" = yes ] && ! gcloud projects describe "$PROJECT" >/dev/null 2>"$WORK/err" </dev/null; then
    REACHED=no
    say "project $PROJECT cannot be read, so this is what a new one needs. gcloud says: $(head -n 1 "$WORK/err")"
  fi
}

# made_here LIST NAME: whether an item has our label.
made_here() {
  py -c 'import json, sys
sys.exit(not any(one.get("name") == sys.argv[2] and "fanout" in (one.get("labels") or {}) for one in json.load(open(sys.argv[1]))))' "$WORK/$1" "$2"
}

# fill FILE NAME=VALUE…: sets FILLED to a file with ${NAME} replaced, and READ to a copy that this run alone reads. A dry run does not write
# FILLED, but prints how to: it may stand beside a run that deploys.
fill() {
  local file=$1 folder=${TMPDIR:-/tmp}/fanout-$PROJECT
  shift
  FILLED=$folder/$file
  FILLED=${FILLED%.*}.json READ=$WORK/filled.json
  files fill "$DEPLOY/$file" "$@" >"$READ"
  if [ "$DRY" = yes ]; then
    printf 'mkdir -p %s\n%s >%s\n' "$(quoted "$(dirname "$FILLED")")" "$(quoted "$PYTHON" "$DEPLOY/files.py" fill "$DEPLOY/$file" "$@")" \
      "$(quoted "$FILLED")"
    return 0
  fi
  # Its name is known to all users of this machine: what another made there is not deployed.
  mkdir -p -m 700 "$folder"
  if [ -L "$folder" ] || [ ! -O "$folder" ]; then stop "$folder belongs to another user: set TMPDIR to a folder of yours"; fi
  mkdir -p "$(dirname "$FILLED")"
  cp "$READ" "$FILLED"
}

# put VALUE KEY…: sets one field of FILLED, by the names that lead to it.
put() {
  if [ "$DRY" = yes ]; then quoted "$PYTHON" "$DEPLOY/files.py" put "$FILLED" "$@"; else files put "$FILLED" "$@"; fi
}

# What the image is made of, each with its hash.
sources() {
  local file
  echo "$BASE_DIGEST"
  # shellcheck disable=SC2046  # one word for each folder that .dockerignore lets in
  find Dockerfile .dockerignore $(sed -n 's#^!/##p' .dockerignore) -type f ! -name '*.pyc' | LC_ALL=C sort |
    while read -r file; do
      printf '%s ' "$file"
      git hash-object --no-filters "$file"
    done
}

# know_image [build]: sets IMAGE to what runs, by its digest. The tag is made from the sources and their base: the same is not built twice.
know_image() {
  local repository=$REGION-docker.pkg.dev/$PROJECT/fanout/fanout tag digest
  if [ -n "$IMAGE" ]; then say "image: $IMAGE"; return 0; fi
  tag=$(cd "$ROOT" && sources | git hash-object --stdin | cut -c1-16)
  ABSENT=empty look tags.json gcloud artifacts docker tags list "$repository"
  digest=$(digest_of "$tag")
  if [ -z "$digest" ] && [ "${1:-}" = build ]; then
    change gcloud builds submit "$ROOT" "--config=$DEPLOY/cloudbuild.yaml" "--project=$PROJECT" "--region=${BUILD_REGION:-$REGION}" \
      --suppress-logs "--substitutions=_IMAGE=$repository:$tag,_BASE_DIGEST=$BASE_DIGEST" "--gcs-source-staging-dir=gs://$BUCKET-build/source" \
      "--service-account=projects/$PROJECT/serviceAccounts/$(account fanout-builder)"
    look tags.json gcloud artifacts docker tags list "$repository"
    digest=$(digest_of "$tag")
  fi
  if [ "$DRY" = yes ] && [ -z "$digest" ]; then
    printf 'IMAGE=%s@$(gcloud artifacts docker tags list %s --filter=tag:%s "--format=value(version.basename())")\n' \
      "$repository" "$repository" "$tag"
    IMAGE='$IMAGE'
    return 0
  fi
  [ -n "$digest" ] || stop "no image of these sources was built yet: deploy/deploy.sh --from image …"
  IMAGE=$repository@$digest
  say "image: $IMAGE (tag $tag)"
}

digest_of() {
  py -c 'import json, sys
print(next((one["version"].split("/")[-1] for one in json.load(open(sys.argv[1])) if one["tag"].split("/")[-1] == sys.argv[2]), ""))' \
    "$WORK/tags.json" "$1"
}

# Sets CHANNEL to where alerts go.
know_channel() {
  CHANNEL=$NOTIFY_CHANNEL
  [ -z "$CHANNEL" ] || return 0
  find_channel
  if [ -n "$CHANNEL" ]; then say 'notification channel: as it is'; return 0; fi
  change gcloud beta monitoring channels create --type=email --display-name=Fanout "--channel-labels=email_address=$NOTIFY_EMAIL" \
    --user-labels=fanout=alerts "--project=$PROJECT"
  if [ "$DRY" = yes ]; then
    echo "CHANNEL=\$(gcloud beta monitoring channels list $(quoted "--project=$PROJECT") --limit=1" \
      "'--filter=userLabels.fanout=alerts AND labels.email_address=$NOTIFY_EMAIL' '--format=value(name)')"
    CHANNEL='$CHANNEL'
  else
    find_channel
  fi
}

find_channel() {
  look channels.json gcloud beta monitoring channels list "--project=$PROJECT"
  CHANNEL=$(py -c 'import json, sys
print(next((one["name"] for one in json.load(open(sys.argv[1])) if one.get("labels", {}).get("email_address") == sys.argv[2] and
  one.get("userLabels", {}).get("fanout")), ""))' "$WORK/channels.json" "$NOTIFY_EMAIL")
}
