# Who may speak to whom, one rule each:
#
#   api_cidrs -443-> api ---+
#                           +-8080-> servers -5432-> database
#   jobs ----443-> machines-+                -5671-> broker
#
# Nobody reaches a job's instance, no port of SSH is open anywhere, and servers do not reach one another.

locals {
  # EC2 takes no apostrophe in a description.
  groups = {
    api      = "Load balancer of the API"
    machines = "Load balancer for callbacks of machines"
    servers  = "Servers of the daemons"
    jobs     = "Instances of jobs: nothing comes in"
    database = "PostgreSQL"
    broker   = "RabbitMQ"
  }

  # From, to, port.
  flows = {
    api_to_servers      = ["api", "servers", local.daemons.api.port]
    machines_to_servers = ["machines", "servers", local.daemons.api.port]
    servers_to_database = ["servers", "database", 5432]
    servers_to_broker   = ["servers", "broker", 5671]
    jobs_to_machines    = ["jobs", "machines", 443]
  }
}

resource "aws_security_group" "this" {
  for_each = local.groups

  name        = "${local.name}-${each.key}"
  description = each.value
  vpc_id      = aws_vpc.this.id

  tags = merge({ Name = "${local.name}-${each.key}" }, each.key == "jobs" ? local.for_jobs : {})
}

resource "aws_vpc_security_group_ingress_rule" "flow" {
  for_each = local.flows

  security_group_id            = aws_security_group.this[each.value[1]].id
  referenced_security_group_id = aws_security_group.this[each.value[0]].id
  ip_protocol                  = "tcp"
  from_port                    = each.value[2]
  to_port                      = each.value[2]
}

resource "aws_vpc_security_group_egress_rule" "flow" {
  # Jobs may send anywhere.
  for_each = { for name, flow in local.flows : name => flow if flow[0] != "jobs" }

  security_group_id            = aws_security_group.this[each.value[0]].id
  referenced_security_group_id = aws_security_group.this[each.value[1]].id
  ip_protocol                  = "tcp"
  from_port                    = each.value[2]
  to_port                      = each.value[2]
}

resource "aws_vpc_security_group_ingress_rule" "api" {
  for_each = var.api_cidrs

  security_group_id = aws_security_group.this["api"].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_ingress_rule" "metrics" {
  for_each = var.metrics_cidrs

  security_group_id = aws_security_group.this["servers"].id
  cidr_ipv4         = each.value
  ip_protocol       = "tcp"
  from_port         = local.daemons.scheduler.port
  to_port           = local.daemons.reaper.port
}

# AWS' own APIs, the registry, and the receivers of webhooks.
resource "aws_vpc_security_group_egress_rule" "servers" {
  security_group_id = aws_security_group.this["servers"].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "tcp"
  from_port         = 443
  to_port           = 443
}

resource "aws_vpc_security_group_egress_rule" "jobs" {
  security_group_id = aws_security_group.this["jobs"].id
  cidr_ipv4         = "0.0.0.0/0"
  ip_protocol       = "-1"
}
