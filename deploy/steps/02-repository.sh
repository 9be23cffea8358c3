# shellcheck shell=bash
look repositories.json gcloud artifacts repositories list "--location=$REGION" "--project=$PROJECT"
if has repositories.json name fanout; then
  say 'repository fanout: as it is'
else
  change gcloud artifacts repositories create fanout --repository-format=docker "--location=$REGION" "--project=$PROJECT" --labels=fanout=images
fi
