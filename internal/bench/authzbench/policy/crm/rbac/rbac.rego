# METADATA
# title: Role-based access
# description: Grants of a depth.
# schemas:
#   - input: schema.input
package crm.rbac

import data.crm.facts

depths contains depth if {
	some role in facts.roles
	depth := data.settings.grants[role][input.resource.type][input.action]
}

reaches_all if "all" in depths

reaches_team if {
	"team" in depths
	startswith(input.subject.team, "/")
	startswith(input.resource.team, input.subject.team)
}

reaches_own if {
	"own" in depths
	input.subject.id > ""
	input.resource.owner == input.subject.id
}

shared if {
	input.action in data.settings.shareable_actions
	input.resource.type in data.settings.shareable_types
	some share in input.subject.shares
	share.record == input.resource.id
	input.action in share.actions
}
