# shellcheck shell=bash
look metrics.json gcloud logging metrics list "--project=$PROJECT"
for file in "$DEPLOY"/monitoring/metrics/*.yaml; do
  [ -f "$file" ] || continue
  name=$(basename "$file" .yaml)
  py -c 'import json, sys, yaml; print(json.dumps({**yaml.safe_load(open(sys.argv[1])), "name": sys.argv[2]}))' \
    "$file" "$name" >"$WORK/wanted.json"
  compare "metric $name" "$WORK/wanted.json" metrics.json name
  case $STATE in
    missing) change gcloud logging metrics create "$name" "--config-from-file=$file" "--project=$PROJECT" ;;
    differs) change gcloud logging metrics update "$name" "--config-from-file=$file" "--project=$PROJECT" ;;
  esac
done

know_channel
values=("PROJECT=$PROJECT" "CHANNEL=$CHANNEL" "COST_A_DAY_USD=$COST_A_DAY_USD" "RUNBOOKS=$RUNBOOKS")
look policies.json gcloud alpha monitoring policies list "--project=$PROJECT"
for file in "$DEPLOY"/monitoring/alerts/*.json; do
  [ -f "$file" ] || continue
  fill "monitoring/alerts/$(basename "$file")" "${values[@]}"
  compare "alert $(basename "$file" .json)" "$READ" policies.json displayName
  case $STATE in
    missing) change gcloud alpha monitoring policies create "--policy-from-file=$FILLED" "--project=$PROJECT" ;;
    differs) change gcloud alpha monitoring policies update "$FOUND" "--policy-from-file=$FILLED" "--project=$PROJECT" ;;
  esac
done
[ -f "$DEPLOY/monitoring/dashboard.json" ] || return 0
look dashboards.json gcloud monitoring dashboards list "--project=$PROJECT"
fill monitoring/dashboard.json "${values[@]}"
compare dashboard "$READ" dashboards.json displayName
case $STATE in
  missing) change gcloud monitoring dashboards create "--config-from-file=$FILLED" "--project=$PROJECT" ;;
  differs)
    # Google refuses a change that does not say of which version it is.
    etag=$(py -c 'import json, sys
print(next(one.get("etag", "") for one in json.load(open(sys.argv[1])) if one["name"] == sys.argv[2]))' "$WORK/dashboards.json" "$FOUND")
    put "$etag" etag
    change gcloud monitoring dashboards update "$FOUND" "--config-from-file=$FILLED" "--project=$PROJECT" ;;
esac
