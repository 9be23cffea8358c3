# Who may do what: deploy/identity/, one table for deploy.sh and Terraform. Every grant is a member's own (`_iam_member`), so that what
# others grant stays.
locals {
  identity = "${path.module}/../identity"
  rows     = csvdecode(file("${local.identity}/bindings.csv"))
  roles    = { for name in fileset("${local.identity}/roles", "*.yaml") : trimsuffix(name, ".yaml") => yamldecode(file("${local.identity}/roles/${name}")) }
  accounts = toset([for row in local.rows : row.account if row.account != "pubsub-agent"])
  members = merge(
    { for name in local.accounts : name => google_service_account.fanout[name].member },
    { pubsub-agent = "serviceAccount:service-${data.google_project.this.number}@gcp-sa-pubsub.iam.gserviceaccount.com" },
  )

  # What a word of the column `on` stands for; anything else is KIND:NAME, or project, bucket, repository, build-bucket.
  places = {
    topics                   = [for name in local.topics : "topic:${name}"]
    subscriptions            = [for name in keys(local.subscriptions) : "subscription:${name}"]
    dead-letter-topic        = ["topic:dead-letters"]
    dead-letter-subscription = ["subscription:dead-letters"]
  }
  grants = merge([
    for row in local.rows : {
      for place in lookup(local.places, row.on, [row.on]) : "${row.account} ${row.role} ${place}" => {
        member = local.members[row.account]
        role   = startswith(row.role, "custom:") ? google_project_iam_custom_role.fanout[trimprefix(row.role, "custom:")].name : row.role
        kind   = split(":", place)[0]
        name   = try(split(":", place)[1], "")
      }
    }
  ]...)
}

resource "google_service_account" "fanout" {
  for_each = local.accounts

  account_id   = "fanout-${each.key}"
  display_name = "Fanout: ${each.key}"
  depends_on   = [google_project_service.apis]
}

resource "google_project_iam_custom_role" "fanout" {
  for_each = local.roles

  role_id     = each.key
  title       = each.value.title
  description = each.value.description
  permissions = each.value.includedPermissions
  stage       = each.value.stage
  depends_on  = [google_project_service.apis]
}

resource "google_project_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "project" }

  project = var.project
  role    = each.value.role
  member  = each.value.member
}

resource "google_storage_bucket_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if endswith(grant.kind, "bucket") }

  bucket = each.value.kind == "bucket" ? google_storage_bucket.fanout.name : google_storage_bucket.build.name
  role   = each.value.role
  member = each.value.member
}

resource "google_artifact_registry_repository_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "repository" }

  repository = google_artifact_registry_repository.fanout.name
  location   = var.region
  role       = each.value.role
  member     = each.value.member
}

resource "google_pubsub_topic_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "topic" }

  topic      = each.value.name
  depends_on = [google_pubsub_topic.lanes, google_pubsub_topic.dead_letters]
  role       = each.value.role
  member     = each.value.member
}

resource "google_pubsub_subscription_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "subscription" }

  subscription = each.value.name
  depends_on   = [google_pubsub_subscription.lanes, google_pubsub_subscription.dead_letters]
  role         = each.value.role
  member       = each.value.member
}

resource "google_service_account_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "account" }

  service_account_id = google_service_account.fanout[trimprefix(each.value.name, "fanout-")].name
  role               = each.value.role
  member             = each.value.member
}

resource "google_cloud_run_v2_service_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "service" && var.image != null }

  name       = each.value.name
  location   = var.region
  depends_on = [google_cloud_run_v2_service.fanout]
  role       = each.value.role
  member     = each.value.member
}

# The job is made by `fanout apply`, before the apply with an image.
resource "google_cloud_run_v2_job_iam_member" "grants" {
  for_each = { for key, grant in local.grants : key => grant if grant.kind == "job" && var.image != null }

  name     = each.value.name
  location = var.region
  role     = each.value.role
  member   = each.value.member
}
