output "repository" {
  description = "Where the image is pushed to."
  value       = "${var.region}-docker.pkg.dev/${var.project}/${google_artifact_registry_repository.fanout.repository_id}"
}

output "front_door" {
  description = "Where tasks are submitted; private. Null until there is an image."
  value       = try(google_cloud_run_v2_service.fanout["fanout-intake"].uri, null)
}

output "controller" {
  description = "The controller: dashboard and ticks; private. Null until there is an image."
  value       = try(google_cloud_run_v2_service.fanout["fanout-controller"].uri, null)
}
