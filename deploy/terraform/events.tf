# EC2's events about instances, for the reaper: a reason to look before its next sweep. And the logs.

resource "aws_sqs_queue" "events" {
  name                      = "${local.name}-events"
  message_retention_seconds = 3600
  sqs_managed_sse_enabled   = true
}

resource "aws_cloudwatch_event_rule" "instances" {
  name        = "${local.name}-instances"
  description = "Instances that change their state, and spot instances that EC2 takes back"
  event_pattern = jsonencode({
    source = ["aws.ec2"]
    detail-type = [
      "EC2 Instance State-change Notification",
      "EC2 Spot Instance Interruption Warning",
    ]
  })
}

resource "aws_cloudwatch_event_target" "instances" {
  rule = aws_cloudwatch_event_rule.instances.name
  arn  = aws_sqs_queue.events.arn
}

resource "aws_sqs_queue_policy" "events" {
  queue_url = aws_sqs_queue.events.url
  policy    = data.aws_iam_policy_document.events.json
}

data "aws_iam_policy_document" "events" {
  statement {
    actions   = ["sqs:SendMessage"]
    resources = [aws_sqs_queue.events.arn]

    principals {
      type        = "Service"
      identifiers = ["events.amazonaws.com"]
    }

    condition {
      test     = "ArnEquals"
      variable = "aws:SourceArn"
      values   = [aws_cloudwatch_event_rule.instances.arn]
    }
  }
}

resource "aws_cloudwatch_log_group" "this" {
  name              = "/atemporal/${var.deployment}"
  retention_in_days = local.size.log_retention_days
}
