# shellcheck shell=bash
look accounts.json gcloud iam service-accounts list "--project=$PROJECT"
for name in $(accounts); do
  if has accounts.json email "$(account "$name")"; then
    say "account $name: as it is"
  else
    change gcloud iam service-accounts create "$name" "--project=$PROJECT" --display-name=Fanout
  fi
done

look roles.json gcloud iam roles list "--project=$PROJECT" --show-deleted
for file in "$DEPLOY"/identity/roles/*.yaml; do
  [ -f "$file" ] || continue
  role=$(basename "$file" .yaml)
  if ! has roles.json name "$role"; then
    change gcloud iam roles create "$role" "--project=$PROJECT" "--file=$file"
    continue
  fi
  look role.json gcloud iam roles describe "$role" "--project=$PROJECT"
  # For 7 days a deleted role can be had back; for 30 more its name cannot be used.
  if grep -q '"deleted": true' "$WORK/role.json"; then change gcloud iam roles undelete "$role" "--project=$PROJECT"; fi
  compare "role $role" "$file" role.json title
  if [ "$STATE" != same ]; then change gcloud iam roles update "$role" "--project=$PROJECT" "--file=$file"; fi
done
