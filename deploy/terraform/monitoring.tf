# deploy/monitoring/, as deploy.sh applies it: log-based metrics, alert policies, the dashboard. The files are written for the API, in
# its own words (camelCase); here each word is named once more in Terraform's.
locals {
  monitoring = "${path.module}/../monitoring"
  metrics    = { for file in fileset("${local.monitoring}/metrics", "*.yaml") : trimsuffix(file, ".yaml") => yamldecode(file("${local.monitoring}/metrics/${file}")) }
  filled = {
    for file in setunion(fileset(local.monitoring, "alerts/*.json"), ["dashboard.json"]) : file => replace(replace(replace(
      file("${local.monitoring}/${file}"),
      "$${CHANNEL}", var.channel),
      "$${COST_A_DAY_USD}", tostring(var.cost_a_day_usd)),
      "$${RUNBOOKS}", var.runbooks
    )
  }
  alerts = { for file, text in local.filled : trimsuffix(basename(file), ".json") => jsondecode(text) if file != "dashboard.json" }
}

resource "google_logging_metric" "fanout" {
  for_each = local.metrics

  name             = each.key
  description      = each.value.description
  filter           = each.value.filter
  value_extractor  = try(each.value.valueExtractor, null)
  label_extractors = try(each.value.labelExtractors, null)
  depends_on       = [google_project_service.apis]

  metric_descriptor {
    metric_kind  = each.value.metricDescriptor.metricKind
    value_type   = each.value.metricDescriptor.valueType
    unit         = try(each.value.metricDescriptor.unit, null)
    display_name = try(each.value.metricDescriptor.displayName, null)

    dynamic "labels" {
      for_each = try(each.value.metricDescriptor.labels, [])

      content {
        key         = labels.value.key
        value_type  = try(labels.value.valueType, null)
        description = try(labels.value.description, null)
      }
    }
  }

  dynamic "bucket_options" {
    for_each = try([each.value.bucketOptions.exponentialBuckets], [])

    content {
      exponential_buckets {
        num_finite_buckets = bucket_options.value.numFiniteBuckets
        growth_factor      = bucket_options.value.growthFactor
        scale              = bucket_options.value.scale
      }
    }
  }
}

resource "google_monitoring_dashboard" "fanout" {
  dashboard_json = local.filled["dashboard.json"]
  depends_on     = [google_logging_metric.fanout]
}

resource "google_monitoring_alert_policy" "fanout" {
  for_each = local.alerts

  display_name          = each.value.displayName
  combiner              = each.value.combiner
  enabled               = each.value.enabled
  severity              = each.value.severity
  user_labels           = each.value.userLabels
  notification_channels = compact(each.value.notificationChannels)
  depends_on            = [google_logging_metric.fanout]

  documentation {
    content   = each.value.documentation.content
    mime_type = each.value.documentation.mimeType
    subject   = each.value.documentation.subject

    dynamic "links" {
      for_each = try(each.value.documentation.links, [])

      content {
        display_name = links.value.displayName
        url          = links.value.url
      }
    }
  }

  alert_strategy {
    auto_close           = each.value.alertStrategy.autoClose
    notification_prompts = each.value.alertStrategy.notificationPrompts
  }

  dynamic "conditions" {
    for_each = each.value.conditions

    content {
      display_name = conditions.value.displayName

      dynamic "condition_threshold" {
        for_each = try([conditions.value.conditionThreshold], [])

        content {
          filter                  = condition_threshold.value.filter
          duration                = condition_threshold.value.duration
          comparison              = try(condition_threshold.value.comparison, null)
          threshold_value         = try(condition_threshold.value.thresholdValue, null)
          evaluation_missing_data = try(condition_threshold.value.evaluationMissingData, null)

          dynamic "aggregations" {
            for_each = try(condition_threshold.value.aggregations, [])

            content {
              alignment_period     = aggregations.value.alignmentPeriod
              per_series_aligner   = aggregations.value.perSeriesAligner
              cross_series_reducer = try(aggregations.value.crossSeriesReducer, null)
              group_by_fields      = try(aggregations.value.groupByFields, null)
            }
          }

          dynamic "trigger" {
            for_each = try([condition_threshold.value.trigger], [])

            content {
              count   = try(trigger.value.count, null)
              percent = try(trigger.value.percent, null)
            }
          }
        }
      }

      dynamic "condition_absent" {
        for_each = try([conditions.value.conditionAbsent], [])

        content {
          filter   = condition_absent.value.filter
          duration = condition_absent.value.duration

          dynamic "aggregations" {
            for_each = try(condition_absent.value.aggregations, [])

            content {
              alignment_period     = aggregations.value.alignmentPeriod
              per_series_aligner   = aggregations.value.perSeriesAligner
              cross_series_reducer = try(aggregations.value.crossSeriesReducer, null)
              group_by_fields      = try(aggregations.value.groupByFields, null)
            }
          }

          dynamic "trigger" {
            for_each = try([condition_absent.value.trigger], [])

            content {
              count   = try(trigger.value.count, null)
              percent = try(trigger.value.percent, null)
            }
          }
        }
      }
    }
  }
}
