# Two load balancers before the same servers. A public one is reached by its public addresses from
# inside the VPC too, and a rule that names a security group does not match those: for the machines'
# sake it would have to be open to the world. So the machines have one of their own, inside the VPC.

locals {
  balancers = {
    api = {
      domain   = var.domain
      internal = false
      subnets  = aws_subnet.public[*].id
    }
    machines = {
      domain   = "machines.${var.domain}"
      internal = true
      subnets  = aws_subnet.private[*].id
    }
  }
}

resource "aws_lb" "this" {
  for_each = local.balancers

  name                       = "${var.deployment}-${each.key}"
  internal                   = each.value.internal
  load_balancer_type         = "application"
  subnets                    = each.value.subnets
  security_groups            = [aws_security_group.this[each.key].id]
  drop_invalid_header_fields = true
  enable_deletion_protection = var.protected
}

resource "aws_lb_target_group" "this" {
  for_each = local.balancers

  name                 = "${var.deployment}-${each.key}"
  vpc_id               = aws_vpc.this.id
  port                 = local.daemons.api.port
  protocol             = "HTTP"
  deregistration_delay = 30

  # It answers while the database is away, so that the clients get the API's own errors.
  health_check {
    path                = "/healthz"
    interval            = 10
    timeout             = 5
    healthy_threshold   = 2
    unhealthy_threshold = 2
  }
}

resource "aws_lb_listener" "this" {
  for_each = local.balancers

  load_balancer_arn = aws_lb.this[each.key].arn
  port              = 443
  protocol          = "HTTPS"
  ssl_policy        = "ELBSecurityPolicy-TLS13-1-2-2021-06"
  certificate_arn   = aws_acm_certificate_validation.this.certificate_arn

  default_action {
    type             = "forward"
    target_group_arn = aws_lb_target_group.this[each.key].arn
  }
}

resource "aws_acm_certificate" "this" {
  domain_name               = local.balancers.api.domain
  subject_alternative_names = [local.balancers.machines.domain]
  validation_method         = "DNS"

  lifecycle {
    create_before_destroy = true
  }
}

resource "aws_route53_record" "validation" {
  for_each = {
    for option in aws_acm_certificate.this.domain_validation_options : option.domain_name => option
  }

  zone_id         = var.zone_id
  name            = each.value.resource_record_name
  type            = each.value.resource_record_type
  records         = [each.value.resource_record_value]
  ttl             = 300
  allow_overwrite = true
}

resource "aws_acm_certificate_validation" "this" {
  certificate_arn         = aws_acm_certificate.this.arn
  validation_record_fqdns = [for record in aws_route53_record.validation : record.fqdn]
}

resource "aws_route53_record" "this" {
  for_each = local.balancers

  zone_id = var.zone_id
  name    = each.value.domain
  type    = "A"

  alias {
    name                   = aws_lb.this[each.key].dns_name
    zone_id                = aws_lb.this[each.key].zone_id
    evaluate_target_health = false
  }
}
