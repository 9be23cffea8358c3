# Private: only who has run.invoker may call them (deploy/identity/bindings.csv). They come with the image. The files of deploy/services
# are written for `gcloud run services replace`, in the API's words; here each word is named once more in Terraform's.
locals {
  controller_url = "https://fanout-controller-${data.google_project.this.number}.${var.region}.run.app"
  services = {
    for name in var.image == null ? [] : ["fanout-controller", "fanout-intake"] : name => yamldecode(templatefile("${path.module}/../services/${name}.yaml", {
      PROJECT         = var.project
      REGION          = var.region
      BUCKET          = var.bucket
      IMAGE           = var.image
      INGRESS         = var.ingress
      HANDLERS        = var.handlers
      LANES           = join(",", [for lane in local.lanes : "${lane.name}=${lane.topic}"])
      CONTROLLER_URL  = local.controller_url
      API_KEYS_SECRET = ""
    }))
  }
  ingress = {
    all                               = "INGRESS_TRAFFIC_ALL"
    internal                          = "INGRESS_TRAFFIC_INTERNAL_ONLY"
    internal-and-cloud-load-balancing = "INGRESS_TRAFFIC_INTERNAL_LOAD_BALANCER"
  }
}

resource "google_cloud_run_v2_service" "fanout" {
  for_each = local.services

  name                = each.key
  location            = var.region
  labels              = each.value.metadata.labels
  ingress             = local.ingress[each.value.metadata.annotations["run.googleapis.com/ingress"]]
  deletion_protection = false # it keeps nothing of its own
  depends_on          = [google_project_service.apis, google_service_account.fanout]

  template {
    service_account = each.value.spec.template.spec.serviceAccountName
    timeout         = try("${each.value.spec.template.spec.timeoutSeconds}s", null)

    scaling {
      max_instance_count = tonumber(each.value.spec.template.metadata.annotations["autoscaling.knative.dev/maxScale"])
    }

    containers {
      image   = each.value.spec.template.spec.containers[0].image
      command = each.value.spec.template.spec.containers[0].command

      resources {
        limits   = each.value.spec.template.spec.containers[0].resources.limits
        cpu_idle = try(each.value.spec.template.metadata.annotations["run.googleapis.com/cpu-throttling"], "true") == "true"
      }

      dynamic "env" {
        for_each = [for one in each.value.spec.template.spec.containers[0].env : one if can(one.value)]

        content {
          name  = env.value.name
          value = env.value.value
        }
      }
    }
  }
}
