locals {
  lifecycle_rules = jsondecode(file("${path.module}/../lifecycle.json")).rule
}

resource "google_storage_bucket" "fanout" {
  name                        = var.bucket
  location                    = var.region
  uniform_bucket_level_access = true
  public_access_prevention    = "enforced"
  force_destroy               = false
  depends_on                  = [google_project_service.apis]

  # Workers replace their progress every 15 s: each copy would be kept, and paid for.
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
        age                    = try(lifecycle_rule.value.condition.age, null)
        days_since_custom_time = try(lifecycle_rule.value.condition.daysSinceCustomTime, null)
        matches_prefix         = lifecycle_rule.value.condition.matchesPrefix
      }
    }
  }

  lifecycle {
    prevent_destroy = true
  }
}
