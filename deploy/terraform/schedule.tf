# A tick each minute; dead letters each hour, by the job that `fanout apply` made. They come with the image.
resource "google_cloud_scheduler_job" "tick" {
  count = var.image == null ? 0 : 1

  name             = "fanout-tick"
  region           = var.region
  schedule         = "* * * * *"
  attempt_deadline = "60s"
  depends_on       = [google_project_service.apis, google_cloud_run_v2_service.fanout]

  http_target {
    http_method = "POST"
    uri         = "${local.controller_url}/tick"

    oidc_token {
      service_account_email = google_service_account.fanout["scheduler"].email
      audience              = local.controller_url
    }
  }
}

resource "google_cloud_scheduler_job" "dead_letters" {
  count = var.image == null ? 0 : 1

  name             = "fanout-dead-letters"
  region           = var.region
  schedule         = "7 * * * *"
  attempt_deadline = "60s"
  depends_on       = [google_project_service.apis]

  http_target {
    http_method = "POST"
    uri         = "https://run.googleapis.com/v2/projects/${var.project}/locations/${var.region}/jobs/dead-letters:run"

    oauth_token {
      service_account_email = google_service_account.fanout["scheduler"].email
    }
  }
}
