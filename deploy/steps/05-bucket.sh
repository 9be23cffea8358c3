# shellcheck shell=bash
look buckets.json gcloud storage buckets list --raw "--project=$PROJECT"

# bucket NAME LIFECYCLE: nobody can make it public, its objects have no lists of their own, and what is deleted is not kept and billed.
bucket() {
  local options=(--uniform-bucket-level-access --public-access-prevention --soft-delete-duration=0)
  printf '{"name": "%s", "iamConfiguration": {"uniformBucketLevelAccess": {"enabled": true}, "publicAccessPrevention": "enforced"},
    "softDeletePolicy": {"retentionDurationSeconds": "0"}, "lifecycle": %s}\n' "$1" "$(cat "$2")" >"$WORK/wanted.json"
  compare "bucket $1" "$WORK/wanted.json" buckets.json name
  if [ "$STATE" = missing ]; then
    change gcloud storage buckets create "gs://$1" "--location=$REGION" "--project=$PROJECT" "${options[@]}"
  elif [ "$STATE" = same ]; then
    return 0
  # An empty one that lacks nothing but the lifecycle is as a run left it that failed here.
  elif ! made_here buckets.json "$1" && { [ "$WHY" != 'lifecycle.rule is null' ] || holds "$1"; }; then
    warn "bucket $1 was not made here ($WHY); if nothing else counts on that:" \
      "$(quoted gcloud storage buckets update "gs://$1" "${options[@]}" "--lifecycle-file=$2")"
    return 0
  fi
  change gcloud storage buckets update "gs://$1" "${options[@]}" --update-labels=fanout=bucket "--lifecycle-file=$2"
}

bucket "$BUCKET" "$DEPLOY/lifecycle.json"
[ -n "$IMAGE" ] || bucket "$BUCKET-build" "$DEPLOY/build-lifecycle.json"
