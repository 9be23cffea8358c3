resource "google_cloud_scheduler_job" "tick" {
  count = var.image == null ? 0 : 1

  name             = "fanout-tick"
  region           = var.region
  schedule         = "* * * * *"
  attempt_deadline = "60s"

  http_target {
    http_method = "POST"
    uri         = "${google_cloud_run_v2_service.controller[0].uri}/tick"

    oidc_token {
      service_account_email = google_service_account.fanout["scheduler"].email
      audience              = google_cloud_run_v2_service.controller[0].uri
    }
  }
}

# Starts the job `dead-letters`, which `fanout apply` made.
resource "google_cloud_scheduler_job" "dead_letters" {
  count = var.image == null ? 0 : 1

  name     = "fanout-dead-letters"
  region   = var.region
  schedule = "0 * * * *"

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/projects/${var.project}/locations/${var.region}/jobs/dead-letters:run"

    oauth_token {
      service_account_email = google_service_account.fanout["scheduler"].email
    }
  }
}
