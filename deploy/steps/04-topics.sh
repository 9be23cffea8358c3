# shellcheck shell=bash
# Topics, and subscriptions with the settings that the worker counts on: leases are extended (so a short deadline), handlers say how long a
# failed task waits (so no retry policy), and the dead-letter policy is a net for what kills every worker.
look topics.json gcloud pubsub topics list "--project=$PROJECT"
look subscriptions.json gcloud pubsub subscriptions list "--project=$PROJECT"

topic() {
  case " ${TOPICS:-} " in *" $1 "*) return 0 ;; esac
  TOPICS="${TOPICS:-} $1"
  if has topics.json name "$1"; then say "topic $1: as it is"; return 0; fi
  change gcloud pubsub topics create "$1" "--project=$PROJECT" --labels=fanout=lane
}

# subscription NAME TOPIC: without a dead-letter policy where it is that topic's own.
subscription() {
  local options=(--ack-deadline=60 --message-retention-duration=7d --expiration-period=never) dead=null
  if [ "$2" != dead-letters ]; then
    options=("${options[@]}" --dead-letter-topic=dead-letters "--dead-letter-topic-project=$PROJECT" --max-delivery-attempts=100)
    dead="{\"deadLetterTopic\": \"projects/$PROJECT/topics/dead-letters\", \"maxDeliveryAttempts\": 100}"
  fi
  cat >"$WORK/wanted.json" <<END
{"name": "projects/$PROJECT/subscriptions/$1", "topic": "projects/$PROJECT/topics/$2", "ackDeadlineSeconds": 60,
 "messageRetentionDuration": "604800s", "expirationPolicy": {"ttl": null}, "retryPolicy": null, "enableMessageOrdering": null,
 "pushConfig": {"pushEndpoint": null}, "detached": null, "deadLetterPolicy": $dead}
END
  compare "subscription $1" "$WORK/wanted.json" subscriptions.json name
  case $STATE in
    missing) change gcloud pubsub subscriptions create "$1" "--topic=$2" "${options[@]}" "--project=$PROJECT" --labels=fanout=lane ;;
    differs)
      case $WHY in
        *topic\ is* | *enableMessageOrdering* | *pushEndpoint* | *detached*)
          echo "subscription $1 $WHY: that cannot be changed" >"$WORK/err"
          failed gcloud pubsub subscriptions delete "$1" "--project=$PROJECT" ;;
      esac
      options=("${options[@]}" --clear-retry-policy)
      [ "$2" != dead-letters ] || options=("${options[@]}" --clear-dead-letter-policy)
      if made_here subscriptions.json "projects/$PROJECT/subscriptions/$1"; then
        change gcloud pubsub subscriptions update "$1" "${options[@]}" "--project=$PROJECT"
      else
        warn "subscription $1 was not made here ($WHY); if nothing else counts on that:" \
          "$(quoted gcloud pubsub subscriptions update "$1" "${options[@]}" "--project=$PROJECT")"
      fi ;;
  esac
}

topic dead-letters
subscription dead-letters dead-letters
# Lanes may share a topic, and then a subscription.
lanes | awk '!made[$3, $4]++' >"$WORK/queues"
while read -r _ _ name source <&4; do
  topic "$name"
  subscription "$source" "$name"
done 4<"$WORK/queues"
