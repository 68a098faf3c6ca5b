# Three servers, each with every daemon: one is away, the others do its work. What a server is made of
# comes by Ignition at its boot and is never changed after it; which image a daemon runs is a parameter,
# which `make deploy` writes.

locals {
  # A daemon's port has its /readyz and its metrics. A daemon with policies has a role of its own, the
  # others have no credentials at all.
  daemons = {
    api       = { port = 8080, policies = [] }
    scheduler = { port = 9101, policies = [] }
    launcher  = { port = 9102, policies = ["launcher", "launcher-fence", "launcher-pass-role", "doctor"] }
    reaper    = { port = 9103, policies = ["reaper", "reaper-events"] }
  }

  file_settings = {
    registries   = "ATEMPORAL_REGISTRIES_FILE"
    prices       = "ATEMPORAL_PRICES_FILE"
    certificates = "ATEMPORAL_IDENTITY_CERTIFICATES"
  }

  settings = merge(
    {
      ATEMPORAL_DEPLOYMENT       = var.deployment
      ATEMPORAL_REGION           = var.region
      ATEMPORAL_AWS_ACCOUNT_ID   = data.aws_caller_identity.this.account_id
      ATEMPORAL_CALLBACK_URL     = "https://${local.balancers.machines.domain}"
      ATEMPORAL_SUBNETS          = join(",", aws_subnet.jobs[*].id)
      ATEMPORAL_SECURITY_GROUPS  = aws_security_group.this["jobs"].id
      ATEMPORAL_INSTANCE_PROFILE = var.job_role
      ATEMPORAL_EVENTS_QUEUE_URL = aws_sqs_queue.events.url
      ATEMPORAL_API_HOST         = "0.0.0.0"
      ATEMPORAL_API_PORT         = tostring(local.daemons.api.port)
      ATEMPORAL_HEALTH_HOST      = "0.0.0.0"
      ATEMPORAL_LOG_FORMAT       = "json"
    },
    { for name in var.files : local.file_settings[name] => "/run/atemporal/${name}" },
    var.settings,
  )

  # What /opt/atemporal/server reads.
  server = merge(
    {
      DEPLOYMENT = var.deployment
      AWS_REGION = var.region
      REGISTRY   = split("/", var.image)[0]
      LOG_GROUP  = aws_cloudwatch_log_group.this.name
      AWS_CLI    = "public.ecr.aws/aws-cli/aws-cli:2.31.0"
      DAEMONS    = join(" ", keys(local.daemons))
      FILES      = join(" ", var.files)
    },
    { for name, daemon in local.daemons : "PORT_${name}" => tostring(daemon.port) },
    { for name, role in aws_iam_role.daemon : "ROLE_${name}" => role.arn },
  )

  server_files = {
    "/opt/atemporal/server"       = { mode = 493, text = file("${path.module}/server/server") } # 0755
    "/etc/atemporal/aws-config"   = { mode = 420, text = file("${path.module}/server/aws-config") }
    "/etc/atemporal/settings.env" = { mode = 420, text = join("", [for k, v in local.settings : "${k}=${v}\n"]) }
    "/etc/atemporal/server.env"   = { mode = 420, text = join("", [for k, v in local.server : "${k}=\"${v}\"\n"]) }
  }

  ignition = jsonencode({
    ignition = { version = "3.3.0" }
    storage = {
      files = concat(
        [
          for path, file in local.server_files : {
            path     = path
            mode     = file.mode
            contents = { source = "data:;base64,${base64encode(file.text)}" }
          }
        ],
        [{
          path = "/etc/atemporal/rds.pem"
          mode = 420
          contents = {
            source = "https://truststore.pki.rds.amazonaws.com/${var.region}/${var.region}-bundle.pem"
          }
        }],
      )
      links = [
        for name in keys(local.daemons) : {
          path   = "/etc/systemd/system/multi-user.target.wants/atemporal@${name}.service"
          target = "/etc/systemd/system/atemporal@.service"
        }
      ]
    }
    systemd = {
      units = concat(
        [
          # An update reboots a server without asking: a new image comes by a new server.
          { name = "update-engine.service", mask = true },
          { name = "locksmithd.service", mask = true },
          { name = "docker.service", enabled = true },
        ],
        [
          for name in fileset("${path.module}/server", "*.{service,timer}") : {
            name     = name
            enabled  = endswith(name, ".timer")
            contents = file("${path.module}/server/${name}")
          }
        ],
      )
    }
  })
}

data "aws_ami" "flatcar" {
  # Flatcar's publisher.
  owners      = ["075585003325"]
  most_recent = true

  filter {
    name   = "name"
    values = ["Flatcar-stable-*-hvm"]
  }

  filter {
    name   = "architecture"
    values = ["x86_64"]
  }
}

resource "aws_ssm_parameter" "image" {
  for_each = local.daemons

  name  = "/atemporal/${var.deployment}/image/${each.key}"
  type  = "String"
  value = var.image

  # From here on `make deploy` writes it.
  lifecycle {
    ignore_changes = [value]
  }
}

resource "aws_launch_template" "server" {
  name                   = "${local.name}-server"
  update_default_version = true
  image_id               = var.server_image_id == "" ? data.aws_ami.flatcar.id : var.server_image_id
  instance_type          = local.size.server_type
  vpc_security_group_ids = [aws_security_group.this["servers"].id]
  user_data              = base64encode(local.ignition)

  iam_instance_profile {
    arn = aws_iam_instance_profile.server.arn
  }

  # One hop: containers behind docker's bridge get none of the server's credentials.
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  block_device_mappings {
    device_name = "/dev/xvda"

    ebs {
      volume_type           = "gp3"
      volume_size           = 20
      encrypted             = true
      delete_on_termination = true
    }
  }

  dynamic "tag_specifications" {
    for_each = ["instance", "volume"]

    content {
      resource_type = tag_specifications.value
      tags = {
        Name               = "${local.name}-server"
        "atemporal:server" = var.deployment
      }
    }
  }
}

resource "aws_autoscaling_group" "servers" {
  name                = "${local.name}-servers"
  min_size            = local.servers
  max_size            = local.servers + 1
  desired_capacity    = local.servers
  vpc_zone_identifier = aws_subnet.private[*].id
  target_group_arns   = [for group in aws_lb_target_group.this : group.arn]
  # Not ELB: it knows the API alone, of four daemons. A rollout takes a server out of the load balancers,
  # and an image that is not there, or a database that is not migrated yet, is no server's fault.
  health_check_type         = "EC2"
  health_check_grace_period = 120
  wait_for_capacity_timeout = "15m"

  launch_template {
    id      = aws_launch_template.server.id
    version = aws_launch_template.server.latest_version
  }

  # A new AMI or another file of a server: one server more, then one less. EC2's health does not say that
  # daemons work there: after the first of three it waits, so that a person can look, and stop it.
  instance_refresh {
    strategy = "Rolling"

    preferences {
      min_healthy_percentage = 100
      max_healthy_percentage = 134
      instance_warmup        = 180
      checkpoint_percentages = [33, 100]
      checkpoint_delay       = 3600
    }
  }

  tag {
    key                 = "atemporal:server"
    value               = var.deployment
    propagate_at_launch = true
  }

  # A server that boots reads them.
  depends_on = [
    aws_nat_gateway.this,
    aws_secretsmanager_secret_version.stores,
    aws_secretsmanager_secret_version.callback_keys,
    aws_ssm_parameter.image,
    aws_iam_role_policy.server,
  ]
}
