# METADATA
# title: Role-based access
# description: >-
#   Grants are data (INCITS 359). A grant says how deep it reaches: own records, those of the team and its
#   sub-teams, those that are free in a pool of which the subject is a member, or all. The rules stay within
#   what can become a list's filter: comparisons of one attribute of the record with something known.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.15
package crm.rbac

import data.crm.facts

# METADATA
# title: Depths
# description: How deep the subject's grants reach for this action on this type.
depths contains depth if {
	some role in facts.roles
	depth := data.settings.grants[role][input.resource.type][input.action]
}

# METADATA
# title: All
# description: A grant reaches every record of the type.
reaches_all if "all" in depths

# METADATA
# title: Team
# description: A grant reaches the records of the subject's team and its sub-teams.
reaches_team if {
	"team" in depths
	startswith(input.subject.team, "/")
	endswith(input.subject.team, "/")
	startswith(input.resource.team, input.subject.team)
}

# METADATA
# title: Own
# description: A grant reaches the subject's own records.
reaches_own if {
	"own" in depths
	input.subject.id > ""
	input.resource.owner == input.subject.id
}

# METADATA
# title: Pool
# description: A grant reaches the records that are free in a pool of which the subject is a member.
reaches_pool if {
	"pool" in depths
	some id in input.subject.pools
	id > ""
	id == input.resource.pool
}
