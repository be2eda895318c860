# METADATA
# title: Role-based access
# description: >-
#   Roles and their hierarchy (INCITS 359) and grants are data. A grant says how deep it reaches: own
#   records, those of the team and its sub-teams, or all. The rules stay within what can become a list's
#   filter: comparisons of one attribute of the record with something known.
# schemas:
#   - input: schema.input
# custom:
#   control: ISO 27001 A.5.15
package crm.rbac

# METADATA
# title: Session roles
# description: The roles of the session. A reserved role counts for the one subject it is reserved to.
session_roles contains role if {
	some role in input.subject.roles
	object.get(data.settings.reserved, role, input.subject.id) == input.subject.id
}

# METADATA
# title: Effective roles
# description: The roles of the session and all that they inherit, so far as they are known.
effective_roles := graph.reachable(data.settings.inherits, session_roles)

# METADATA
# title: Depths
# description: How deep the subject's grants reach for this action on this type.
depths contains depth if {
	some role in effective_roles
	depth := data.settings.grants[role][input.resource.type][input.action]
}

# METADATA
# scope: document
# title: Permit
# description: A grant reaches the record.
permit if "all" in depths

permit if {
	"team" in depths
	in_team
}

permit if {
	"own" in depths
	owns
}

in_team if {
	startswith(input.subject.team, "/")
	endswith(input.subject.team, "/")
	startswith(input.resource.team, input.subject.team)
}

owns if {
	input.subject.id != ""
	input.resource.owner == input.subject.id
}

# METADATA
# scope: document
# title: Grounds
# description: Which kind of grant covers the record; shown to the person as the reason.
grounds contains "rbac.all" if "all" in depths

grounds contains "rbac.team" if {
	"team" in depths
	in_team
}

grounds contains "rbac.own" if {
	"own" in depths
	owns
}
