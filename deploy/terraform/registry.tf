# What is pushed into it is built by Cloud Build, not by Terraform.
resource "google_artifact_registry_repository" "fanout" {
  repository_id = "fanout"
  location      = var.region
  format        = "DOCKER"
  description   = "Fanout's image"
  labels        = { fanout = "images" }
  depends_on    = [google_project_service.apis]
}
