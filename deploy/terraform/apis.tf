locals {
  apis = [
    "artifactregistry", "cloudbuild", "cloudresourcemanager", "cloudscheduler", "iam", "iamcredentials", "logging", "monitoring", "pubsub",
    "run", "secretmanager", "storage", "sts",
  ]
}

resource "google_project_service" "apis" {
  for_each = toset(local.apis)

  service            = "${each.key}.googleapis.com"
  disable_on_destroy = false # others in the project may use them
}
