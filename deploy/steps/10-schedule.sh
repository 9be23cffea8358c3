# shellcheck shell=bash
know_controller
look schedule.json gcloud scheduler jobs list "--location=$REGION" "--project=$PROJECT"

# schedule NAME CRON URI oidc|oauth AUDIENCE
schedule() {
  local token=oidcToken options=("--$4-service-account-email=$(account fanout-scheduler)") extra=",\"audience\": \"$5\""
  if [ "$4" = oauth ]; then token=oauthToken extra=''; else options=("${options[@]}" "--oidc-token-audience=$5"); fi
  cat >"$WORK/wanted.json" <<END
{"name": "projects/$PROJECT/locations/$REGION/jobs/$1", "schedule": "$2", "state": "ENABLED", "attemptDeadline": "60s", "httpTarget": {"uri": "$3",
 "httpMethod": "POST", "$token": {"serviceAccountEmail": "$(account fanout-scheduler)"$extra}}}
END
  compare "Scheduler job $1" "$WORK/wanted.json" schedule.json name
  case "$STATE $WHY" in
    same*) return 0 ;;
    missing*) STATE=create ;;
    'differs state is "PAUSED"')
      warn "Scheduler job $1 is paused: $(quoted gcloud scheduler jobs resume "$1" "--location=$REGION" "--project=$PROJECT")"
      return 0 ;;
    *) STATE=update ;;
  esac
  change gcloud scheduler jobs "$STATE" http "$1" "--location=$REGION" "--project=$PROJECT" "--schedule=$2" "--uri=$3" --http-method=POST \
    --attempt-deadline=60s "${options[@]}"
}

schedule fanout-tick "$TICK_SCHEDULE" "$CONTROLLER_URL/tick" oidc "$CONTROLLER_URL"
schedule fanout-dead-letters "$DEAD_LETTERS_SCHEDULE" \
  "https://run.googleapis.com/v2/projects/$PROJECT/locations/$REGION/jobs/dead-letters:run" oauth ''
