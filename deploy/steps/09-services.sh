# shellcheck shell=bash
know_image
know_controller
look services.json gcloud run services list "--region=$REGION" "--project=$PROJECT"
# A revision that names a secret starts only if its account may read it.
if [ -n "$API_KEYS_SECRET" ]; then wanted_secret >"$WORK/wanted"; grant_listed; fi
lane_map=$(lanes | while read -r _ lane topic _; do printf '%s=%s,' "$lane" "$topic"; done)
for name in fanout-controller fanout-intake; do
  fill "services/$name.yaml" "INGRESS=$INGRESS" "PROJECT=$PROJECT" "REGION=$REGION" "BUCKET=$BUCKET" "IMAGE=$IMAGE" "LANES=${lane_map%,}" \
    "HANDLERS=$HANDLERS" "CONTROLLER_URL=$CONTROLLER_URL" "API_KEYS_SECRET=$API_KEYS_SECRET"
  compare "service $name" "$FILLED" services.json metadata.name
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
