#!/usr/bin/env bash
# Lets others in without keys: Google Cloud believes the tokens of a repository's workflow, or of a cluster or CI elsewhere. Once, by an
# owner, after deploy.sh; safe to run again. What it made stays until it is deleted; nobody gets in by what is only half made.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/library.sh"

usage() {
  cat <<'END'
deploy/federation.sh [--dry-run] parameters.env deploy OWNER/NAME ENVIRONMENT
    workflows of this GitHub repository, in this environment of it, may run deploy.sh, as fanout-deployer
deploy/federation.sh [--dry-run] parameters.env submit ISSUER SUBJECT
    who has tokens of this OpenID issuer (https://…) with this subject may submit tasks, as fanout-submitter

  --dry-run    print every command that would change something, and run none of them
END
}

if [ "${1:-}" = --dry-run ]; then DRY=yes; shift; fi
if [ $# != 4 ]; then usage >&2; exit 2; fi
FILE=$1 WHAT=$2 WHO=$3 WHERE=$4
STEP=federation RESUME="$(quoted "$0")$([ "$DRY" = no ] || echo ' --dry-run') $(quoted "$FILE" "$WHAT" "$WHO" "$WHERE")"
# All go into a condition between quotes: a quote would end it.
case $WHO$WHERE in *[!A-Za-z0-9_./:@-]*) stop "$WHO, $WHERE: letters, digits and _./:@- only" ;; esac
case $WHAT in
  deploy)
    case $WHO in */*/* | /* | */) stop "$WHO: the repository as OWNER/NAME" ;; */*) ;; *) stop "$WHO: the repository as OWNER/NAME" ;; esac
    ACCOUNT=fanout-deployer PROVIDER=github ISSUER=https://token.actions.githubusercontent.com
    # The name in the token is the one of the moment: whoever is in the environment was let in by its rules (branches, reviewers).
    CONDITION="assertion.repository == '$WHO' && assertion.environment == '$WHERE'"
    MAPPING='google.subject=assertion.sub,attribute.repository=assertion.repository'
    MAPPED='"google.subject": "assertion.sub", "attribute.repository": "assertion.repository"'
    SET=attribute.repository/$WHO KIND=principalSet ;;
  submit)
    case $WHO in https://?*) ;; *) stop "$WHO: the issuer begins with https://" ;; esac
    ACCOUNT=fanout-submitter PROVIDER=submitters ISSUER=$WHO
    CONDITION="assertion.sub == '$WHERE'" MAPPING=google.subject=assertion.sub MAPPED='"google.subject": "assertion.sub"'
    SET=subject/$WHERE KIND=principal ;;
  *) usage >&2; stop "$WHAT: deploy or submit" ;;
esac
find_fanout
read_parameters "$FILE"
know_number

POOL=projects/$NUMBER/locations/global/workloadIdentityPools/fanout
HERE=(--location=global "--project=$PROJECT")

# deleted LIST NAME: whether the item is, but keeps its name for 30 days.
deleted() {
  py -c 'import json, sys
named = [one for one in json.load(open(sys.argv[1])) if one["name"].split("/")[-1] == sys.argv[2]]
sys.exit(not any(one.get("state") == "DELETED" for one in named))' "$WORK/$1" "$2"
}

look pools.json gcloud iam workload-identity-pools list "${HERE[@]}" --show-deleted
if ! has pools.json name fanout; then
  change gcloud iam workload-identity-pools create fanout "${HERE[@]}" --display-name=Fanout
elif deleted pools.json fanout; then
  change gcloud iam workload-identity-pools undelete fanout "${HERE[@]}"
else
  say 'pool fanout: as it is'
fi

look providers.json gcloud iam workload-identity-pools providers list --workload-identity-pool=fanout "${HERE[@]}" --show-deleted
if deleted providers.json "$PROVIDER"; then
  change gcloud iam workload-identity-pools providers undelete "$PROVIDER" --workload-identity-pool=fanout "${HERE[@]}"
fi
cat >"$WORK/wanted.json" <<END
{"displayName": "$PROVIDER", "attributeCondition": "$CONDITION", "attributeMapping": {$MAPPED}, "oidc": {"issuerUri": "$ISSUER"}}
END
compare "provider $PROVIDER" "$WORK/wanted.json" providers.json displayName
case $STATE in missing) VERB=create-oidc ;; differs) VERB=update-oidc ;; *) VERB='' ;; esac
[ -z "$VERB" ] || change gcloud iam workload-identity-pools providers "$VERB" "$PROVIDER" --workload-identity-pool=fanout "${HERE[@]}" \
  "--display-name=$PROVIDER" "--issuer-uri=$ISSUER" "--attribute-mapping=$MAPPING" "--attribute-condition=$CONDITION"

look accounts.json gcloud iam service-accounts list "--project=$PROJECT"
has accounts.json email "$(account $ACCOUNT)" || change gcloud iam service-accounts create $ACCOUNT "--project=$PROJECT" --display-name=Fanout
echo "account $ACCOUNT roles/iam.workloadIdentityUser $KIND://iam.googleapis.com/$POOL/$SET" >"$WORK/wanted"
[ "$WHAT" = deploy ] || echo "service fanout-intake roles/run.invoker serviceAccount:$(account $ACCOUNT)" >>"$WORK/wanted"
grant_listed

if [ "$WHAT" = deploy ]; then
  say "Variables of the environment $WHERE in GitHub: WORKLOAD_IDENTITY_PROVIDER=$POOL/providers/$PROVIDER DEPLOYER=$(account $ACCOUNT)"
else
  # It holds no secret: it says where the token lies. Google's clients read it by GOOGLE_APPLICATION_CREDENTIALS.
  change gcloud iam workload-identity-pools create-cred-config "$POOL/providers/$PROVIDER" "--service-account=$(account $ACCOUNT)" \
    --credential-source-file=/var/run/secrets/fanout/token --output-file=fanout-submitter.json
fi
[ $CHANGES -gt 0 ] || say 'no change'
