# Nobody can make them public, their objects have no lists of their own, and what is deleted or replaced is not kept and billed (workers
# replace their progress every 15 s). Which folders are emptied when: deploy/lifecycle.json.
locals {
  lifecycle_rules       = jsondecode(file("${path.module}/../lifecycle.json")).rule
  build_lifecycle_rules = jsondecode(file("${path.module}/../build-lifecycle.json")).rule
}

resource "google_storage_bucket" "fanout" {
  name                        = var.bucket
  location                    = var.region
  labels                      = { fanout = "bucket" }
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false
  depends_on                  = [google_project_service.apis]

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  dynamic "lifecycle_rule" {
    for_each = local.lifecycle_rules

    content {
      action {
        type = lifecycle_rule.value.action.type
      }

      condition {
        age            = lifecycle_rule.value.condition.age
        matches_prefix = try(lifecycle_rule.value.condition.matchesPrefix, null)
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}

# What `gcloud builds submit` uploads for Cloud Build.
resource "google_storage_bucket" "build" {
  name                        = "${var.bucket}-build"
  location                    = var.region
  labels                      = { fanout = "bucket" }
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = true
  depends_on                  = [google_project_service.apis]

  soft_delete_policy {
    retention_duration_seconds = 0
  }

  dynamic "lifecycle_rule" {
    for_each = local.build_lifecycle_rules

    content {
      action {
        type = lifecycle_rule.value.action.type
      }

      condition {
        age            = lifecycle_rule.value.condition.age
        matches_prefix = try(lifecycle_rule.value.condition.matchesPrefix, null)
      }
    }
  }
}
