# shellcheck shell=bash
look apis.json gcloud services list --enabled "--project=$PROJECT"
missing=()
for api in artifactregistry cloudbuild cloudresourcemanager cloudscheduler iam iamcredentials logging monitoring pubsub run secretmanager \
  storage sts; do
  has apis.json name "$api.googleapis.com" || missing=(${missing[@]+"${missing[@]}"} "$api.googleapis.com")
done
if [ ${#missing[@]} = 0 ]; then
  say 'APIs: as they are'
else
  change gcloud services enable "${missing[@]}" "--project=$PROJECT"
fi
