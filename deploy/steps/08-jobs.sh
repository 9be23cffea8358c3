# shellcheck shell=bash
know_image
options=("--service-account=dead-letters=$(account fanout-dead-letters)")
if [ "$WORKER_ACCOUNTS" = one ]; then
  options=("${options[@]}" "--service-account=$(account fanout-worker)")
else
  while read -r job _; do options=("${options[@]}" "--service-account=$job=$(account "fanout-worker-$job")"); done <"$WORK/lanes"
fi
options=("--project=$PROJECT" "--region=$REGION" "--bucket=$BUCKET" "--image=$IMAGE" "--set-env=HANDLERS=$HANDLERS" "${options[@]}")
command=("$FANOUT" apply "$JOBS_FILE" "${options[@]}" --yes)
if [ "$DRY" = no ]; then
  "$FANOUT" apply "$JOBS_FILE" "${options[@]}" --dry-run --json >"$WORK/jobs.json" 2>"$WORK/err" || failed "${command[@]}"
  py -c 'import json, sys; sys.exit(any(one["changes"] for one in json.load(open(sys.argv[1]))["jobs"]))' "$WORK/jobs.json" &&
    { say 'jobs: as they are'; STATE=same; } || STATE=differs
else
  STATE=missing
fi
if [ "$STATE" != same ]; then
  change "${command[@]}"
  [ "$DRY" = yes ] || cat "$WORK/out"
fi
grant job

# What is no lane any more goes on being drained, and nobody may submit to it: a person says when it may go.
look deployed.json gcloud run jobs list "--region=$REGION" "--project=$PROJECT"
py -c 'import json, sys
for one in json.load(open(sys.argv[1])):
    if "fanout-lane" in (one["metadata"].get("labels") or {}): print(one["metadata"]["name"])' "$WORK/deployed.json" >"$WORK/deployed"
while read -r name <&4; do
  if ! grep -q "^$name " "$WORK/lanes"; then
    warn "job $name is no lane of $JOBS_FILE any more; once nothing of it waits:" \
      "$(quoted gcloud run jobs delete "$name" "--region=$REGION" "--project=$PROJECT")"
  fi
done 4<"$WORK/deployed"
