# Who may do what. The policies are the files of deploy/aws, which hold for installations without
# Terraform too; here the deployment's name is put in.

locals {
  policies = {
    for name in fileset("${path.module}/../aws", "*-policy.json") :
    trimsuffix(name, "-policy.json") => replace(
      replace(
        replace(file("${path.module}/../aws/${name}"), "DEPLOYMENT", var.deployment),
        "JOB_ROLE", var.job_role
      ),
      "arn:aws:", "arn:${data.aws_partition.this.partition}:"
    )
  }

  daemon_policies = merge([
    for name, daemon in local.daemons : {
      for policy in daemon.policies : "${name}/${policy}" => { daemon = name, policy = policy }
      # Without a role for jobs there is none to pass.
      if policy != "launcher-pass-role" || var.job_role != ""
    }
  ]...)
}

# A server reads its own secrets and images, and takes the roles of its daemons.
resource "aws_iam_role" "server" {
  name               = "${local.name}-server"
  assume_role_policy = data.aws_iam_policy_document.servers_assume.json
}

data "aws_iam_policy_document" "servers_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "Service"
      identifiers = ["ec2.amazonaws.com"]
    }
  }
}

resource "aws_iam_role_policy" "server" {
  name   = "server"
  role   = aws_iam_role.server.id
  policy = local.policies["server"]
}

resource "aws_iam_instance_profile" "server" {
  name = "${local.name}-server"
  role = aws_iam_role.server.name
}

# A daemon's role: only the servers take it, and hand its credentials to that daemon's container.
resource "aws_iam_role" "daemon" {
  for_each = { for name, daemon in local.daemons : name => daemon if length(daemon.policies) > 0 }

  name               = "${local.name}-${each.key}"
  assume_role_policy = data.aws_iam_policy_document.daemons_assume.json
}

data "aws_iam_policy_document" "daemons_assume" {
  statement {
    actions = ["sts:AssumeRole"]

    principals {
      type        = "AWS"
      identifiers = [aws_iam_role.server.arn]
    }
  }
}

resource "aws_iam_role_policy" "daemon" {
  for_each = local.daemon_policies

  name   = each.value.policy
  role   = aws_iam_role.daemon[each.value.daemon].id
  policy = local.policies[each.value.policy]
}
