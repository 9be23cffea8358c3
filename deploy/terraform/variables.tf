variable "project" {
  description = "The project that everything is made in. It exists already, with billing."
  type        = string

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "A project id has 6 to 30 lower-case letters, digits and hyphens; not the project's name, nor its number. See: gcloud projects list"
  }
}

variable "region" {
  description = "The region of services, lanes, Scheduler jobs, image and bucket."
  type        = string
  default     = "us-central1"

  validation {
    condition     = can(regex("^[a-z]+-[a-z]+[0-9]+$", var.region))
    error_message = "A region, such as us-central1; not a zone (us-central1-a), nor a multi-region (us). See: gcloud run regions list"
  }
}

variable "bucket" {
  description = "The bucket's name: unique in all of Google Cloud."
  type        = string

  validation {
    condition     = can(regex("^[a-z0-9][a-z0-9_-]{1,61}[a-z0-9]$", var.bucket))
    error_message = "A bucket's name without gs://: 3 to 63 lower-case letters, digits, hyphens and underscores."
  }
}

variable "image" {
  description = "The image by digest. Without it the first apply makes what building the image and `fanout apply` need: no services, no Scheduler jobs."
  type        = string
  default     = null

  validation {
    condition     = var.image == null || can(regex("^[^@\\s]+@sha256:[0-9a-f]{64}$", var.image))
    error_message = "By digest, …/fanout@sha256:…, so that what runs is what was looked at. deploy/deploy.sh --only image prints it."
  }
}

variable "jobs_file" {
  description = "The file of the lanes, which `fanout apply` applies; only their topics and subscriptions are read here."
  type        = string
  default     = "../../jobs.yaml"

  validation {
    condition     = fileexists(var.jobs_file)
    error_message = "There is no such file; a relative path begins at the folder in which terraform runs."
  }
}

variable "channel" {
  description = "Who is told by alerts. Without one they only stand in the console."
  type        = string
  default     = ""

  validation {
    condition     = can(regex("^(projects/[^/]+/notificationChannels/[0-9]+)?$", var.channel))
    error_message = "projects/PROJECT/notificationChannels/ID. See: gcloud beta monitoring channels list --format='value(name)'"
  }
}

variable "cost_a_day_usd" {
  description = "Dollars a day for workers, at list price, above which an alert opens."
  type        = number
  default     = 20

  validation {
    condition     = var.cost_a_day_usd > 0
    error_message = "More than 0 dollars a day."
  }
}

variable "runbooks" {
  description = "The address of the page that alerts link to: docs/runbooks.md, where your team reads it."
  type        = string

  validation {
    condition     = can(regex("^https://[^#]+$", var.runbooks))
    error_message = "An https address without a fragment (#…): each alert adds its own."
  }
}

variable "ingress" {
  description = "From where the services can be reached; callers need run.invoker either way. internal needs a VPC for the front door's pokes."
  type        = string
  default     = "all"

  validation {
    condition     = contains(["all", "internal", "internal-and-cloud-load-balancing"], var.ingress)
    error_message = "Write all, internal, or internal-and-cloud-load-balancing."
  }
}

variable "handlers" {
  description = "Modules with the task types that the front door takes; `fanout apply --set-env HANDLERS=…` says it to the workers."
  type        = string
  default     = "batch.handlers"

  validation {
    condition     = can(regex("^[A-Za-z_][\\w.]*(,[A-Za-z_][\\w.]*)*$", var.handlers))
    error_message = "Names of Python modules, separated by commas, such as batch.handlers,app.handlers."
  }
}
