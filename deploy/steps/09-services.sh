# shellcheck shell=bash
know_image
know_controller
look services.json gcloud run services list "--region=$REGION" "--project=$PROJECT"
# Without rules everybody whom Cloud Run lets in may do everything: nobody is everybody then.
if [ "$DRY" = no ] && [ -z "$API_KEYS_SECRET" ] && ! has_rules; then
  policy get service fanout-intake
  ABSENT=empty look policy.json "${COMMAND[@]}"
  for member in allUsers allAuthenticatedUsers; do
    ! bound roles/run.invoker "$member" || {
      policy remove service fanout-intake
      echo "$member may call the front door, which would ask nobody for a key any more" >"$WORK/err"
      failed "${COMMAND[@]}" "--member=$member" --role=roles/run.invoker
    }
  done
fi
# A revision that names a secret starts only if its account may read it.
if [ -n "$API_KEYS_SECRET" ]; then wanted_secret >"$WORK/wanted"; grant_listed; fi
unready() {
  py -c 'import json, sys
for one in json.load(open(sys.argv[1])):
    conditions = (one.get("status") or {}).get("conditions") or []
    if one["metadata"]["name"] == sys.argv[2]: sys.exit(not any(c["type"] == "Ready" and c["status"] == "False" for c in conditions))
sys.exit(1)' "$WORK/services.json" "$1"
}

lane_map=$(lanes | while read -r _ lane topic _; do printf '%s=%s,' "$lane" "$topic"; done)
for name in fanout-controller fanout-intake; do
  fill "services/$name.yaml" "INGRESS=$INGRESS" "PROJECT=$PROJECT" "REGION=$REGION" "BUCKET=$BUCKET" "IMAGE=$IMAGE" "LANES=${lane_map%,}" \
    "HANDLERS=$HANDLERS" "CONTROLLER_URL=$CONTROLLER_URL" "API_KEYS_SECRET=$API_KEYS_SECRET"
  compare "service $name" "$READ" services.json metadata.name
  # What did not start may now, though nothing of it has changed: a secret's value, a right. Only another revision tries.
  if [ "$STATE" = same ] && unready "$name"; then
    say "service $name: its newest revision did not become ready: once more"
    put "again-$(date +%s)" spec template metadata labels client.knative.dev/nonce
    STATE=differs
  fi
  if [ "$STATE" != same ]; then change gcloud run services replace "$FILLED" "--region=$REGION" "--project=$PROJECT"; fi
done
wanted_bindings service >"$WORK/wanted"
callers=$CALLERS
[ "$PUBLIC_INTAKE" = no ] || callers="$callers${callers:+,}allUsers"
for caller in $(printf %s "$callers" | tr , ' '); do echo "service fanout-intake roles/run.invoker $caller" >>"$WORK/wanted"; done
grant_listed
# Who was let in before and is not named any more stays in, until somebody who knows why says so.
policy get service fanout-intake
look policy.json "${COMMAND[@]}"
bound nobody nobody || true
while read -r role member <&4; do
  if [ "$role" != roles/run.invoker ] || [ "$member" = "serviceAccount:$(account fanout-submitter)" ]; then continue; fi
  if grep -qxF "service fanout-intake $role $member" "$WORK/wanted"; then continue; fi
  policy remove service fanout-intake
  warn "$member may call the front door, and the parameters do not say so; to shut it out:" \
    "$(quoted "${COMMAND[@]}" "--member=$member" "--role=$role")"
done 4<"$WORK/policy.json.lines"
