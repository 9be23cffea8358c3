# Private: only who has run.invoker may call them (deploy/identity/bindings.csv). They come with the image.
resource "google_cloud_run_v2_service" "controller" {
  count = var.image == null ? 0 : 1

  name                = "fanout-controller"
  location            = var.region
  ingress             = var.ingress
  deletion_protection = false # it keeps nothing of its own
  depends_on          = [google_project_service.apis]

  template {
    service_account = google_service_account.fanout["controller"].email
    timeout         = "60s"

    scaling {
      max_instance_count = 1
    }

    containers {
      image   = var.image
      command = ["python"]
      args    = ["-m", "controller"]

      dynamic "env" {
        for_each = { GOOGLE_CLOUD_PROJECT = var.project, REGION = var.region, BUCKET_NAME = var.bucket }

        content {
          name  = env.key
          value = env.value
        }
      }
    }
  }
}

resource "google_cloud_run_v2_service" "intake" {
  count = var.image == null ? 0 : 1

  name                = "fanout-intake"
  location            = var.region
  ingress             = var.ingress
  deletion_protection = false # it keeps nothing of its own
  depends_on          = [google_project_service.apis]

  template {
    service_account = google_service_account.fanout["intake"].email

    containers {
      image   = var.image
      command = ["python"]
      args    = ["-m", "intake"]

      resources {
        cpu_idle = false # it tells the controller of tasks after it has answered
      }

      dynamic "env" {
        for_each = {
          GOOGLE_CLOUD_PROJECT = var.project
          BUCKET_NAME          = var.bucket
          LANES                = join(",", [for name, lane in local.lanes : "${name}=${lane.topic}"])
          CONTROLLER_URL       = google_cloud_run_v2_service.controller[0].uri
        }

        content {
          name  = env.key
          value = env.value
        }
      }
    }
  }
}
