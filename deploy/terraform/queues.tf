# The topics and subscriptions of the lanes; the lanes themselves are jobs, and `fanout apply` owns those.
locals {
  jobs = [for text in split("\n---\n", file(var.jobs_file)) : yamldecode(text)]
  lanes = {
    for job in local.jobs : job.metadata.name => {
      name         = job.metadata.labels["fanout-lane"]
      topic        = job.metadata.annotations["fanout/topic"]
      subscription = job.metadata.annotations["fanout/subscription"]
    } if can(job.metadata.labels["fanout-lane"])
  }
  topics        = toset([for lane in local.lanes : lane.topic])
  subscriptions = { for lane in local.lanes : lane.subscription => lane.topic }
}

resource "google_pubsub_topic" "lanes" {
  for_each = local.topics

  name       = each.key
  labels     = { fanout = "lane" }
  depends_on = [google_project_service.apis]
}

resource "google_pubsub_topic" "dead_letters" {
  name       = "dead-letters"
  labels     = { fanout = "lane" }
  depends_on = [google_project_service.apis]
}

# Workers extend leases, so that a long deadline would only delay what a killed worker held; handlers have backoffs of their own, so that
# there is no retry policy; Pub/Sub's dead-letter policy is a net that Fanout's own retries never reach.
resource "google_pubsub_subscription" "lanes" {
  for_each = local.subscriptions

  name                       = each.key
  topic                      = google_pubsub_topic.lanes[each.value].id
  labels                     = { fanout = "lane" }
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }

  dead_letter_policy {
    dead_letter_topic     = google_pubsub_topic.dead_letters.id
    max_delivery_attempts = 100
  }

  lifecycle {
    prevent_destroy = true # its messages would go with it
  }
}

resource "google_pubsub_subscription" "dead_letters" {
  name                       = "dead-letters"
  topic                      = google_pubsub_topic.dead_letters.id
  labels                     = { fanout = "lane" }
  ack_deadline_seconds       = 60
  message_retention_duration = "604800s"

  expiration_policy {
    ttl = ""
  }

  lifecycle {
    prevent_destroy = true # its messages would go with it
  }
}
